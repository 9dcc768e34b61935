//! The classic policies on a pool of processors, written down as plainly as their rules are:
//! everything is looked at anew in every pass. Shares nothing with the planner.
//!
//! Of jobs that end in the same second the first started ends first. A job that reaches its limit
//! in this second holds nothing any more, though its end may come after an arrival.

/// One rigid job. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) submit: i64,
    /// Not above `limit`.
    pub(crate) run: i64,
    pub(crate) limit: i64,
    pub(crate) size: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Fcfs,
    Easy,
    EasySjbf,
    Conservative,
}

struct Cluster<'a> {
    jobs: &'a [Job],
    rule: Rule,
    processors: u32,
    now: i64,
    /// As far as this pass has come.
    free: u32,
    /// In the order of arrival; conservative: with the reserved start.
    queue: Vec<(usize, i64)>,
    /// (end by the limit, end, job), in the order of starting.
    running: Vec<(i64, i64, usize)>,
    starts: Vec<i64>,
    profile: Profile,
    released: bool,
}

/// Starts of jobs in the order of (submit, id). `per_event`: a pass after each event, arrivals
/// before completions, instead of one pass after all completions and then all arrivals of a second.
pub(crate) fn starts(jobs: &[Job], processors: u32, rule: Rule, per_event: bool) -> Vec<i64> {
    let mut cluster = Cluster {
        jobs,
        rule,
        processors,
        now: 0,
        free: processors,
        queue: Vec::new(),
        running: Vec::new(),
        starts: vec![i64::MIN; jobs.len()],
        profile: Profile { steps: vec![(i64::MIN, i64::from(processors))] },
        released: false,
    };
    let mut next = 0;
    loop {
        let arrival = jobs.get(next).map(|job| job.submit);
        let end = cluster.running.iter().map(|(_, end, _)| *end).min();
        let Some(now) = arrival.into_iter().chain(end).min() else { break };
        cluster.now = now;
        if per_event {
            if arrival == Some(now) {
                cluster.arrive(next);
                next += 1;
            } else {
                cluster.complete();
            }
        } else {
            while cluster.complete() {}
            while jobs.get(next).is_some_and(|job| job.submit == now) {
                cluster.arrive(next);
                next += 1;
            }
        }
        cluster.pass();
    }
    assert!(cluster.queue.is_empty(), "every job starts");
    cluster.starts
}

impl Cluster<'_> {
    fn arrive(&mut self, job: usize) {
        self.queue.push((job, i64::MAX));
    }

    /// Ends the first started of the jobs that end now.
    fn complete(&mut self) -> bool {
        let Some(at) = self.running.iter().position(|(_, end, _)| *end == self.now) else {
            return false;
        };
        let (limit_end, end, job) = self.running.remove(at);
        let size = self.jobs[job].size;
        self.profile.add(end, limit_end, i64::from(size));
        self.released = true;
        true
    }

    fn pass(&mut self) {
        let held = self.running.iter().filter(|(limit_end, _, _)| *limit_end > self.now);
        let held: u32 = held.map(|(_, _, job)| self.jobs[*job].size).sum();
        self.free = self.processors - held;
        if self.rule == Rule::Conservative {
            return self.conservative();
        }
        while let Some((job, _)) = self.queue.first().copied() {
            if self.jobs[job].size > self.free {
                break;
            }
            self.start(job);
        }
        if self.rule == Rule::Fcfs || self.queue.is_empty() {
            return;
        }
        let (shadow, mut spare) = self.shadow(self.jobs[self.queue[0].0].size);
        let mut candidates: Vec<usize> = self.queue[1..].iter().map(|(job, _)| *job).collect();
        if self.rule == Rule::EasySjbf {
            candidates.sort_by_key(|job| self.jobs[*job].limit);
        }
        for candidate in candidates {
            let job = self.jobs[candidate];
            if job.size > self.free {
                continue;
            }
            if self.now + job.limit <= shadow {
                self.start(candidate);
            } else if job.size <= spare {
                spare -= job.size;
                self.start(candidate);
            }
        }
    }

    /// When so many processors are free by the limits of what runs, and how many are left then.
    fn shadow(&self, size: u32) -> (i64, u32) {
        let holding = self.running.iter().filter(|(end, _, _)| *end > self.now);
        let mut ends: Vec<(i64, u32)> =
            holding.map(|(end, _, job)| (*end, self.jobs[*job].size)).collect();
        ends.sort_unstable();
        let mut free = self.free;
        let mut ends = ends.into_iter().peekable();
        while let Some((end, released)) = ends.next() {
            free += released;
            let last_of_second = ends.peek().is_none_or(|(other, _)| *other != end);
            if last_of_second && free >= size {
                return (end, free - size);
            }
        }
        unreachable!("every job fits an empty machine")
    }

    fn start(&mut self, job: usize) {
        let Job { run, limit, size, .. } = self.jobs[job];
        self.queue.retain(|(other, _)| *other != job);
        self.free = self.free.checked_sub(size).expect("it fits");
        self.running.push((self.now + limit, self.now + run, job));
        self.starts[job] = self.now;
        if self.rule != Rule::Conservative {
            self.profile.add(self.now, self.now + limit, -i64::from(size));
        }
    }

    fn conservative(&mut self) {
        let compress = std::mem::take(&mut self.released);
        for at in 0..self.queue.len() {
            let (job, reserved) = self.queue[at];
            let Job { limit, size, .. } = self.jobs[job];
            if reserved != i64::MAX {
                if !compress {
                    continue;
                }
                self.profile.add(reserved, reserved + limit, i64::from(size));
            }
            let start = self.profile.earliest(self.now, limit, i64::from(size));
            self.profile.add(start, start + limit, -i64::from(size));
            self.queue[at].1 = start;
        }
        let due = self.queue.iter().filter(|(_, start)| *start <= self.now);
        let due: Vec<usize> = due.map(|(job, _)| *job).collect();
        due.into_iter().for_each(|job| self.start(job));
        self.profile.forget(self.now);
    }
}

/// Free processors from each time on.
struct Profile {
    steps: Vec<(i64, i64)>,
}

impl Profile {
    fn split(&mut self, at: i64) -> usize {
        match self.steps.binary_search_by_key(&at, |(time, _)| *time) {
            Ok(index) => index,
            Err(index) => {
                let free = self.steps[index - 1].1;
                self.steps.insert(index, (at, free));
                index
            }
        }
    }

    fn add(&mut self, from: i64, to: i64, processors: i64) {
        if from >= to {
            return;
        }
        let first = self.split(from);
        let last = self.split(to);
        self.steps[first..last].iter_mut().for_each(|(_, free)| *free += processors);
    }

    fn earliest(&self, now: i64, length: i64, size: i64) -> i64 {
        let mut start = now;
        for (at, (from, free)) in self.steps.iter().enumerate() {
            let until = self.steps.get(at + 1).map_or(i64::MAX, |(to, _)| *to);
            if until <= start {
                continue;
            }
            if *from >= start.saturating_add(length) {
                break;
            }
            if *free < size {
                start = until;
            }
        }
        start
    }

    /// What was before `now` is of no more interest.
    fn forget(&mut self, now: i64) {
        let index = self.split(now);
        self.steps.drain(1..index);
        self.steps.dedup_by_key(|(_, free)| *free);
    }
}
