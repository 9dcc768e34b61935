//! Lists that narrow what is shown: job ids, users.

use muster_model::array::{ArraySpec, IndexSet};
use muster_proto::v1::{Job, JobRef};

use super::surroundings::Surroundings;

/// One job id as users write it: `12`, `12_4`, `12_[1-3,7]`, `12.batch`, `12_4.0`, `12+1` (a
/// component of a heterogeneous job).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) job: u32,
    /// The job that it is named as a component of.
    pub(crate) leader: Option<u32>,
    /// Tasks of an array; all when unset.
    pub(crate) tasks: Option<IndexSet>,
    /// A step's name; all and the job itself when unset.
    pub(crate) step: Option<String>,
}

/// Indices are checked by the controller; this only bounds what one text can make us hold.
const MAX_INDEX: u32 = 4_000_001;

impl Pick {
    /// Reads one id.
    ///
    /// # Errors
    /// The text, when it is none.
    pub(crate) fn parse(text: &str) -> Result<Pick, String> {
        let bad = || text.to_owned();
        let (id, step) = match text.split_once('.') {
            Some((id, step)) if !step.is_empty() => (id, Some(step.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let (id, tasks) = match id.split_once('_') {
            Some((id, tasks)) => {
                let inner = tasks.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
                let spec = ArraySpec::parse(inner.unwrap_or(tasks), MAX_INDEX);
                (id, Some(spec.map_err(|_| bad())?.indices))
            }
            None => (id, None),
        };
        let (id, place) = match id.split_once('+') {
            Some((id, place)) if tasks.is_none() => {
                (id, Some(place.parse::<u32>().map_err(|_| bad())?))
            }
            Some(_) => return Err(bad()),
            None => (id, None),
        };
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        let job = plain.then(|| id.parse::<u32>().ok()).flatten().filter(|id| *id > 0);
        let leader = job.filter(|_| place.is_some());
        let job = job.and_then(|id| id.checked_add(place.unwrap_or(0)));
        Ok(Pick { job: job.ok_or_else(bad)?, leader, tasks, step })
    }

    /// Reads ids between commas; those inside brackets separate indices.
    ///
    /// # Errors
    /// The first text that is no id.
    pub(crate) fn list(text: &str) -> Result<Vec<Pick>, String> {
        let (mut picks, mut start, mut depth) = (Vec::new(), 0, 0u32);
        let ends = text.char_indices().chain([(text.len(), ',')]);
        for (at, c) in ends {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ',' if depth == 0 || at == text.len() => {
                    let item = text[start..at].trim();
                    if !item.is_empty() {
                        picks.push(Pick::parse(item)?);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        Ok(picks)
    }

    /// As the controller reads it.
    pub(crate) fn reference(&self) -> JobRef {
        let tasks = self.tasks.as_ref().map_or_else(String::new, IndexSet::to_string);
        JobRef { job: self.job, tasks }
    }

    /// As it was written, without a step.
    pub(crate) fn text(&self) -> String {
        match (self.leader, &self.tasks) {
            (Some(leader), _) => format!("{leader}+{}", self.job - leader),
            (None, Some(tasks)) if tasks.len() == 1 => format!("{}_{tasks}", self.job),
            (None, Some(tasks)) => format!("{}_[{tasks}]", self.job),
            (None, None) => self.job.to_string(),
        }
    }

    /// Whether a job of this number can be meant: `12+1` is a component of job 12 and no other job
    /// that happens to be the thirteenth.
    pub(crate) fn may_be(&self, job: &Job) -> bool {
        let leads = || super::shown::het(job).map(|(leader, _)| leader);
        self.leader.is_none_or(|leader| leads() == Some(leader))
    }

    /// Whether it names this job, or a task of its rest that has not started.
    pub(crate) fn names(&self, job: &Job) -> bool {
        if self.tasks.is_none() && job.id == self.job {
            return self.may_be(job);
        }
        // The number of a heterogeneous job names all its components.
        let het = super::shown::het(job);
        let whole = self.tasks.is_none() && self.leader.is_none();
        if whole && het.is_some_and(|(leader, _)| leader == self.job) {
            return true;
        }
        // A task's own number before it starts: the controller, which knows the numbering,
        // answers with what that names of its array.
        if self.tasks.is_none() && !job.array_tasks.is_empty() && self.job > job.array_id {
            return true;
        }
        let tasks = |wanted: &IndexSet| match job.array_task {
            Some(task) => wanted.contains(task),
            None => waiting(job).iter().any(|index| wanted.contains(index)),
        };
        job.array_id == self.job && self.tasks.as_ref().is_none_or(tasks)
    }
}

/// The tasks of an array that have not started.
pub(crate) fn waiting(job: &Job) -> IndexSet {
    let list = job.array_tasks.split('%').next().unwrap_or_default();
    ArraySpec::parse(list, u32::MAX).map(|spec| spec.indices).unwrap_or_default()
}

/// Keeps of an array's rest only the tasks that were asked for.
pub(crate) fn narrow(job: &mut Job, picks: &[Pick]) {
    if job.array_tasks.is_empty() || picks.is_empty() {
        return;
    }
    let mine: Vec<&Pick> = picks.iter().filter(|p| p.names(job)).collect();
    if mine.is_empty() || mine.iter().any(|p| p.tasks.is_none()) {
        return;
    }
    let wanted =
        |index: &u32| mine.iter().any(|p| p.tasks.as_ref().is_some_and(|t| t.contains(*index)));
    let left: Vec<u32> = waiting(job).iter().filter(wanted).collect();
    if let [one] = left.as_slice() {
        job.array_task = Some(*one);
        job.array_tasks.clear();
    } else {
        let ranges = left.iter().map(|i| (*i, *i)).collect();
        job.array_tasks = IndexSet::from_ranges(ranges).to_string();
    }
}

/// Uids of a comma list of names and numbers, and the names nobody has.
pub(crate) fn users(text: &str, here: &Surroundings) -> (Vec<u32>, Vec<String>) {
    let (mut uids, mut unknown) = (Vec::new(), Vec::new());
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match here.user(name) {
            Some(uid) => uids.push(uid),
            None => unknown.push(name.to_owned()),
        }
    }
    (uids, unknown)
}

/// The words of a comma list.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &[(u32, &str, Option<&str>)]) {
        let picks = Pick::list(text).expect(text);
        let got: Vec<_> =
            picks.iter().map(|p| (p.job, p.reference().tasks, p.step.clone())).collect();
        let wanted: Vec<_> = shown
            .iter()
            .map(|(job, tasks, step)| (*job, (*tasks).to_owned(), step.map(str::to_owned)))
            .collect();
        assert_eq!(got, wanted, "{text}");
    }

    #[test]
    fn every_form_of_an_id_is_read() {
        check("12", &[(12, "", None)]);
        check("12_4,13", &[(12, "4", None), (13, "", None)]);
        check("12_[1-3,7],9.batch", &[(12, "1-3,7", None), (9, "", Some("batch"))]);
        check("12_4.0", &[(12, "4", Some("0"))]);
        check("12+1.0", &[(13, "", Some("0"))]);
        check("5,5,", &[(5, "", None), (5, "", None)]);
    }

    #[test]
    fn a_component_is_one_of_the_job_it_is_named_after() {
        let pick = |text: &str| Pick::parse(text).unwrap();
        let part = |index| muster_proto::v1::HetPart { index, count: 2 };
        let of = |id, index| {
            let spec = muster_proto::v1::JobSpec { het: Some(part(index)), ..Default::default() };
            Job { id, spec: Some(spec), ..Job::default() }
        };
        let (lead, second) = (of(12, 0), of(13, 1));
        let other = Job { id: 13, ..Job::default() };
        let named = |text: &str| [&lead, &second, &other].map(|job| pick(text).names(job));
        assert_eq!(named("12"), [true, true, false]);
        assert_eq!(named("12+0"), [true, false, false]);
        assert_eq!(named("12+1"), [false, true, false]);
        assert_eq!(named("13"), [false, true, true]);
        for text in ["12+1", "12", "12_4", "12_[1-3,7]"] {
            assert_eq!(pick(text).text(), text);
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["abc", "-1", "0", "12_", "12.", "99999999999", "12_[1", "1 2"] {
            assert_eq!(Pick::list(text), Err(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_arrays_rest_is_narrowed_to_what_was_asked() {
        let rest = Job { id: 20, array_id: 20, array_tasks: "0-9".into(), ..Job::default() };
        let narrowed = |text: &str| {
            let picks = Pick::list(text).unwrap();
            let mut job = rest.clone();
            assert!(picks.iter().any(|p| p.names(&job)));
            narrow(&mut job, &picks);
            (job.array_tasks, job.array_task)
        };
        assert_eq!(narrowed("20"), ("0-9".to_owned(), None));
        assert_eq!(narrowed("20_4"), (String::new(), Some(4)));
        assert_eq!(narrowed("20_4,20_[6-7]"), ("4,6-7".to_owned(), None));
        assert!(!Pick::parse("20_11").unwrap().names(&rest));
        assert!(Pick::parse("24").unwrap().names(&rest), "a task's own number");
        assert!(!Pick::parse("19").unwrap().names(&rest));
    }
}
