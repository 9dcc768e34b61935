//! The steps of one job: numbers, what each holds, who waits. Pure: times come in, and who waits is
//! a number to somebody else.

use std::collections::{BTreeMap, VecDeque};

use muster_proto::v1::{
    CloseStepRequest, GresCount, NodePart, OpenStepRequest, Step, StepRecord, StepShape, StepState,
};

use super::place::{Refusal, Share, cpu_list, place};

/// Ended steps that are remembered, of one job: enough for every job that is looked at by hand. Of
/// a job with more, the first and the last tell as much.
const REMEMBERED: usize = 1000;

/// A step that was granted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Granted {
    pub(super) step: Step,
    pub(super) parts: Vec<NodePart>,
    pub(super) holds: bool,
}

impl Granted {
    pub(super) fn record(&self) -> StepRecord {
        StepRecord { step: Some(self.step.clone()), parts: self.parts.clone(), holds: self.holds }
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    ticket: u64,
    request: OpenStepRequest,
    uid: u32,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    shares: Vec<Share>,
    attempt: u32,
    next: u32,
    live: BTreeMap<u32, Granted>,
    ended: VecDeque<Step>,
    waiting: VecDeque<Waiter>,
}

impl Table {
    /// Of a job with these nodes, and what a journal says of its steps.
    pub(super) fn new(attempt: u32, shares: Vec<Share>, journal: Vec<StepRecord>) -> Table {
        let mut table = Table { shares, attempt, ..Table::default() };
        for record in journal {
            let Some(step) = record.step else { continue };
            table.next = table.next.max(step.step + 1);
            match step.state() {
                StepState::Running => {
                    let granted = Granted { parts: record.parts, holds: record.holds, step };
                    table.live.insert(granted.step.step, granted);
                }
                _ => {
                    table.live.remove(&step.step);
                    table.remember(step);
                }
            }
        }
        table
    }

    /// Grants a step if it fits now.
    pub(super) fn open(
        &mut self,
        request: &OpenStepRequest,
        uid: u32,
        now: i64,
    ) -> Result<Granted, Refusal> {
        let shape = request.shape.clone().unwrap_or_default();
        let held: Vec<NodePart> =
            self.live.values().filter(|g| g.holds).flat_map(|g| g.parts.iter().cloned()).collect();
        let parts = place(&self.shares, &held, &shape)?;
        let step = self.describe(request, &shape, &parts, uid, now);
        let granted = Granted { step, parts, holds: !shape.overlap };
        self.next += 1;
        self.live.insert(granted.step.step, granted.clone());
        Ok(granted)
    }

    fn describe(
        &self,
        request: &OpenStepRequest,
        shape: &StepShape,
        parts: &[NodePart],
        uid: u32,
        now: i64,
    ) -> Step {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut gres: Vec<GresCount> = Vec::new();
        for mask in parts.iter().flat_map(|p| &p.gres) {
            match gres.iter_mut().find(|g| g.kind == mask.kind) {
                Some(known) => known.count += mask.count,
                None => gres.push(GresCount { kind: mask.kind.clone(), count: mask.count }),
            }
        }
        let names: muster_model::Hostlist = parts.iter().map(|p| p.node.as_str()).collect();
        Step {
            job: request.job,
            step: self.next,
            name: request.name.clone(),
            state: StepState::Running.into(),
            started_at: now,
            nodes: names.to_string(),
            node_count: count(parts.len()),
            tasks: parts.iter().map(|p| count(p.tasks.len())).sum(),
            cpus: parts.iter().map(|p| count(cpu_list(&p.cpus).len())).sum(),
            gres,
            memory_mib: shape.memory_mib * parts.len() as u64,
            attempt: self.attempt,
            submit_line: request.submit_line.clone(),
            host: request.host.clone(),
            uid,
            distribution: shape.distribution,
            ..Step::default()
        }
    }

    /// Puts somebody into the line.
    pub(super) fn wait(&mut self, ticket: u64, request: OpenStepRequest, uid: u32) {
        self.waiting.push_back(Waiter { ticket, request, uid });
    }

    /// Takes somebody out of it.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|w| w.ticket != ticket);
    }

    /// Grants what fits now, in the order of asking; one that does not fit holds up nobody.
    pub(super) fn serve(&mut self, now: i64) -> Vec<(u64, Result<Granted, Refusal>)> {
        let mut out = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            match self.open(&waiter.request, waiter.uid, now) {
                Err(Refusal::Busy) => self.waiting.push_back(waiter),
                answer => out.push((waiter.ticket, answer)),
            }
        }
        out
    }

    /// A live step.
    pub(super) fn live(&self, step: u32) -> Option<&Granted> {
        self.live.get(&step)
    }

    /// The step has ended. `None`: it is not live.
    pub(super) fn close(&mut self, request: &CloseStepRequest, now: i64) -> Option<Granted> {
        let mut granted = self.live.remove(&request.step)?;
        let status = request.status.unwrap_or_default();
        let state = match () {
            () if request.oom => StepState::OutOfMemory,
            () if request.cancelled => StepState::Cancelled,
            () if status.code != 0 || status.signal != 0 => StepState::Failed,
            () => StepState::Completed,
        };
        granted.step.state = state.into();
        granted.step.ended_at = now;
        granted.step.exit = Some(status);
        granted.step.usage = request.usage;
        granted.step.figures = request.figures.clone();
        self.remember(granted.step.clone());
        Some(granted)
    }

    fn remember(&mut self, step: Step) {
        if self.ended.len() == REMEMBERED {
            // The first tells what the job did; the second-oldest of the rest goes.
            self.ended.remove(1);
        }
        self.ended.push_back(step);
    }

    /// Steps as shown, by number.
    pub(super) fn list(&self, ended: bool) -> Vec<Step> {
        let mut all: Vec<Step> = self.live.values().map(|g| g.step.clone()).collect();
        if ended {
            all.extend(self.ended.iter().cloned());
        }
        all.sort_by_key(|s| s.step);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(cpus: u32) -> Table {
        let share = Share { node: "n1".into(), cpus: (0..cpus).collect(), ..Share::default() };
        Table::new(1, vec![share], Vec::new())
    }

    fn request(tasks: u32) -> OpenStepRequest {
        let shape = StepShape { tasks, cpus_per_task: 1, exact: true, ..StepShape::default() };
        OpenStepRequest { job: 7, shape: Some(shape), ..OpenStepRequest::default() }
    }

    fn close(step: u32) -> CloseStepRequest {
        CloseStepRequest { job: 7, step, ..CloseStepRequest::default() }
    }

    #[test]
    fn whoever_waits_is_served_in_order_as_soon_as_it_fits() {
        let mut table = table(2);
        assert_eq!(table.open(&request(2), 0, 1).unwrap().step.step, 0);
        assert_eq!(table.open(&request(1), 0, 1), Err(Refusal::Busy));
        for (ticket, tasks) in [(1, 2), (2, 1), (3, 1)] {
            table.wait(ticket, request(tasks), 0);
        }
        assert!(table.serve(2).is_empty());
        table.close(&close(0), 3).unwrap();
        let served: Vec<u64> = table.serve(3).into_iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(served, [1]);
        table.leave(2);
        table.close(&close(1), 4).unwrap();
        let served: Vec<u64> = table.serve(4).into_iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(served, [3]);
    }

    #[test]
    fn a_journal_gives_back_numbers_and_what_is_held() {
        let mut table = table(2);
        let mut journal = Vec::new();
        for _ in 0..2 {
            journal.push(table.open(&request(1), 0, 1).unwrap().record());
        }
        journal.push(table.close(&close(0), 2).unwrap().record());
        let again = Table::new(1, table.shares.clone(), journal);
        assert_eq!(again.next, 2);
        assert_eq!(again.live, table.live);
        assert_eq!(again.ended, table.ended);
    }

    #[test]
    fn ten_thousand_steps_leave_a_bounded_memory() {
        let mut table = table(1);
        for step in 0..10_000 {
            table.open(&request(1), 0, 1).unwrap();
            table.close(&close(step), 2).unwrap();
        }
        let list = table.list(true);
        assert_eq!(list.len(), REMEMBERED);
        assert_eq!((list[0].step, list[REMEMBERED - 1].step), (0, 9999));
    }
}
