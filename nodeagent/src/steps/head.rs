//! The table's edge: who opens a step, waits for one, comes back to one, lets go of one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use muster_proto::agent::v1::StepsTold;
use muster_proto::v1::step_news::Kind as News;
use muster_proto::v1::{
    CloseStepRequest, DescribeReply, ExitStatus, OpenStepRequest, PartEnd, Step, StepGrant,
    StepNews,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::journal::Journal;
use super::place::Refusal;
use super::slice::{self, Missing, Slice};
use super::table::{Granted, Table};
use crate::clock::now_ms;
use crate::jobs::job::Key;

/// News of one step that wait to be read: a grant and some signals.
const NEWS: usize = 16;
/// Longer than the shims wait for an asker who is away and then for the tasks to end: a step whose
/// asker is gone for good lets go of what it holds after this.
const ABANDONED: Duration = Duration::from_secs(45);
/// What Slurm says of a step that must wait.
pub(super) const BUSY: &str = "Requested nodes are busy";

/// The steps of the jobs that have their first node here.
#[derive(Debug)]
pub(super) struct Head {
    spool: PathBuf,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    held: HashMap<Key, Held>,
    tickets: u64,
    /// Steps to tell of, by job, attempt and number: the latest word of each.
    news: BTreeMap<(u32, u32, u32), Step>,
    /// Parts here of steps whose table is elsewhere, and whose asker was gone.
    parts: Vec<PartEnd>,
}

#[derive(Debug)]
struct Held {
    table: Table,
    journal: Option<Journal>,
    waiting: HashMap<u64, mpsc::Sender<Result<StepNews, Status>>>,
    /// Who is there for a live step, and since which opening.
    askers: HashMap<u32, (u64, mpsc::Sender<Result<StepNews, Status>>)>,
    /// This node's part of steps whose asker was gone when it ended.
    orphans: HashMap<u32, PartEnd>,
    about: DescribeReply,
}

type Tellings = BTreeMap<(u32, u32, u32), Step>;

fn tell(news: &mut Tellings, step: &Step) {
    news.insert((step.job, step.attempt, step.step), step.clone());
}

impl Held {
    fn note(&mut self, granted: &Granted) {
        if let Some(journal) = &mut self.journal
            && let Err(fault) = journal.write(&granted.record())
        {
            tracing::warn!(job = granted.step.job, "the journal of its steps: {fault}");
        }
    }

    fn grant(&self, granted: &Granted) -> Result<StepNews, Status> {
        let grant = StepGrant {
            job: granted.step.job,
            attempt: granted.step.attempt,
            step: granted.step.step,
            nodes: granted.parts.clone(),
            tasks: granted.step.tasks,
            about: Some(self.about.clone()),
        };
        Ok(StepNews { kind: Some(News::Granted(grant)) })
    }
}

fn refuse(slurm: &str, detail: &str) -> Status {
    use prost::Message as _;
    let error = muster_proto::v1::ErrorDetail {
        slurm_errno: 0,
        slurm_text: slurm.to_owned(),
        message: detail.to_owned(),
    };
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert_bin(
        muster_proto::ERROR_TRAILER,
        tonic::metadata::MetadataValue::from_bytes(&error.encode_to_vec()),
    );
    Status::with_metadata(tonic::Code::FailedPrecondition, detail, metadata)
}

impl Head {
    pub(super) fn new(spool: PathBuf) -> Head {
        Head { spool, jobs: Mutex::default() }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("nobody panics with the tables locked")
    }

    /// The job's table, from its journal where it is not in memory. Tables of attempts that are over
    /// go.
    fn held<'a>(&self, jobs: &'a mut Jobs, slice: &Slice) -> (&'a mut Held, &'a mut Tellings) {
        if !jobs.held.contains_key(&slice.key) {
            let over = |key: &Key| slice::find(&self.spool, key.job, Some(key.attempt)).is_err();
            jobs.held.retain(|key, held| !held.askers.is_empty() || !over(key));
        }
        let held = jobs.held.entry(slice.key).or_insert_with(|| {
            let dir = muster_shim::SliceDir::of(&self.spool, slice.key.job, slice.key.attempt);
            let (journal, records) = match Journal::open(dir.path()) {
                Ok((journal, records)) => (Some(journal), records),
                Err(fault) => {
                    tracing::warn!(slice = %slice.key, "open the journal of its steps: {fault}");
                    (None, Vec::new())
                }
            };
            Held {
                table: Table::new(slice.key.attempt, slice.shares(), records),
                journal,
                waiting: HashMap::new(),
                askers: HashMap::new(),
                orphans: HashMap::new(),
                about: about(slice),
            }
        });
        (held, &mut jobs.news)
    }

    /// Whether there are steps to tell of.
    pub(super) fn has_news(&self) -> bool {
        let jobs = self.jobs();
        !jobs.news.is_empty() || !jobs.parts.is_empty()
    }

    /// The latest of so many steps, at most; none: there is no news.
    pub(super) fn news(&self, most: usize) -> Option<StepsTold> {
        let mut jobs = self.jobs();
        let keys: Vec<_> = jobs.news.keys().take(most).copied().collect();
        let steps: Vec<Step> = keys.iter().filter_map(|key| jobs.news.remove(key)).collect();
        let parts = jobs.parts.len().min(most);
        let parts: Vec<PartEnd> = jobs.parts.drain(..parts).collect();
        (!steps.is_empty() || !parts.is_empty()).then_some(StepsTold { steps, parts })
    }

    /// What could not be told stays news, unless there is newer.
    pub(super) fn give_back(&self, told: StepsTold) {
        let mut jobs = self.jobs();
        for step in told.steps {
            jobs.news.entry((step.job, step.attempt, step.step)).or_insert(step);
        }
        jobs.parts.extend(told.parts);
    }

    /// A part has ended here whose asker was gone. Of a step of this node alone that is the step's
    /// end; of one of several nodes the table lets go when all had time for theirs.
    pub(super) fn orphan_ended(&self, key: Key, end: PartEnd) {
        let Ok(slice) = slice::find(&self.spool, key.job, Some(key.attempt)) else { return };
        let mut jobs = self.jobs();
        if slice.launch.node_index != 0 {
            jobs.parts.push(end);
            return;
        }
        let (held, news) = self.held(&mut jobs, &slice);
        let Some(step) = held.table.live(end.step) else { return };
        let (number, alone) = (end.step, step.parts.len() == 1);
        held.orphans.insert(number, end);
        if alone {
            Self::abandon(held, news, number);
        }
    }

    /// Lets go of a step whose asker does not come back, with what its part here told.
    fn abandon(held: &mut Held, news: &mut Tellings, step: u32) {
        let Some(job) = held.table.live(step).map(|granted| granted.step.job) else { return };
        let end = held.orphans.remove(&step);
        let killed = ExitStatus { code: 0, signal: 9 };
        let request = CloseStepRequest {
            job,
            step,
            status: end.as_ref().and_then(|end| end.status).or(Some(killed)),
            oom: end.as_ref().is_some_and(|end| end.oom),
            cancelled: true,
            usage: end.as_ref().and_then(|end| end.figures.as_ref()?.usage),
            figures: end.and_then(|end| end.figures?.tasks),
        };
        Self::let_go(held, news, &request);
    }

    /// Everything is news: whoever hears it knows nothing yet. Jobs whose tables are not in memory
    /// are looked up in the spool.
    pub(super) fn tell_again(&self) {
        let slices = muster_shim::SliceDir::list(&self.spool).unwrap_or_default();
        let mut jobs = self.jobs();
        for (job, attempt, dir) in slices {
            if !dir.path().join("steps").exists() {
                continue;
            }
            let Ok(slice) = slice::find(&self.spool, job, Some(attempt)) else { continue };
            let (held, news) = self.held(&mut jobs, &slice);
            held.table.list(true).iter().for_each(|step| tell(news, step));
        }
    }

    /// A new step, or an old one again.
    pub(super) fn open(
        self: &Arc<Self>,
        slice: &Slice,
        request: OpenStepRequest,
        uid: u32,
    ) -> Result<Asker, Status> {
        if slice.launch.node_index != 0 {
            let text =
                format!("node {} is not the first of job {}", slice.launch.node, request.job);
            return Err(Status::failed_precondition(text));
        }
        let (tell, news) = mpsc::channel(NEWS);
        let ticket = self.enter(slice, request, uid, tell)?;
        // Made when the tables are free again: its end looks into them.
        Ok(Asker { head: self.clone(), key: slice.key, ticket, news })
    }

    /// Grants or puts into the line; the number by which the asker is known.
    fn enter(
        &self,
        slice: &Slice,
        request: OpenStepRequest,
        uid: u32,
        tell: mpsc::Sender<Result<StepNews, Status>>,
    ) -> Result<u64, Status> {
        let mut jobs = self.jobs();
        jobs.tickets += 1;
        let ticket = jobs.tickets;
        let (held, news) = self.held(&mut jobs, slice);
        if let Some(step) = request.resume {
            let granted = held.table.live(step).cloned().ok_or_else(|| {
                Status::not_found(format!("step {}.{step} has ended", request.job))
            })?;
            let _ = tell.try_send(held.grant(&granted));
            held.askers.insert(step, (ticket, tell));
            return Ok(ticket);
        }
        match held.table.open(&request, uid, now_ms()) {
            Ok(granted) => {
                held.note(&granted);
                self::tell(news, &granted.step);
                let _ = tell.try_send(held.grant(&granted));
                held.askers.insert(granted.step.step, (ticket, tell));
            }
            Err(Refusal::Busy) if request.immediate => return Err(refuse(BUSY, BUSY)),
            Err(Refusal::Busy) => {
                let _ = tell.try_send(Ok(StepNews { kind: Some(News::Waiting(BUSY.into())) }));
                held.table.wait(ticket, request, uid);
                held.waiting.insert(ticket, tell);
            }
            Err(Refusal::Never { slurm, detail }) => return Err(refuse(slurm, &detail)),
        }
        Ok(ticket)
    }

    /// A step is over.
    pub(super) fn close(&self, slice: &Slice, request: &CloseStepRequest) {
        let mut jobs = self.jobs();
        let (held, news) = self.held(&mut jobs, slice);
        Self::let_go(held, news, request);
    }

    fn let_go(held: &mut Held, news: &mut Tellings, request: &CloseStepRequest) {
        held.askers.remove(&request.step);
        let now = now_ms();
        let Some(closed) = held.table.close(request, now) else { return };
        held.note(&closed);
        tell(news, &closed.step);
        for (ticket, answer) in held.table.serve(now) {
            let Some(tell) = held.waiting.remove(&ticket) else { continue };
            match answer {
                Ok(granted) => {
                    held.note(&granted);
                    self::tell(news, &granted.step);
                    let told = tell.try_send(held.grant(&granted));
                    if told.is_ok() {
                        held.askers.insert(granted.step.step, (ticket, tell));
                    }
                }
                Err(Refusal::Busy) => {}
                Err(Refusal::Never { slurm, detail }) => {
                    let _ = tell.try_send(Err(refuse(slurm, &detail)));
                }
            }
        }
    }

    /// Steps as shown.
    pub(super) fn list(&self, slice: &Slice, ended: bool) -> Vec<Step> {
        let mut jobs = self.jobs();
        self.held(&mut jobs, slice).0.table.list(ended)
    }

    /// A wish of scancel for a step's asker; false: nobody is there.
    pub(super) fn signal(&self, slice: &Slice, step: u32, signal: i32) -> bool {
        let mut jobs = self.jobs();
        let (held, _) = self.held(&mut jobs, slice);
        let news = StepNews { kind: Some(News::Signal(signal)) };
        held.askers.get(&step).is_some_and(|(_, tell)| tell.try_send(Ok(news)).is_ok())
    }

    /// A signal for each live step of a job; those whose asker is away.
    pub(super) fn signal_all(&self, key: Key, signal: i32) -> Vec<u32> {
        let Ok(slice) = slice::find(&self.spool, key.job, Some(key.attempt)) else {
            return Vec::new();
        };
        if slice.launch.node_index != 0 {
            return Vec::new();
        }
        let mut jobs = self.jobs();
        let (held, _) = self.held(&mut jobs, &slice);
        let live = held.table.list(false);
        let away = live.iter().filter(|step| {
            let news = StepNews { kind: Some(News::Signal(signal)) };
            let asker = held.askers.get(&step.step);
            asker.is_none_or(|(_, tell)| tell.try_send(Ok(news)).is_err())
        });
        away.map(|step| step.step).collect()
    }

    /// The asker's stream has ended.
    fn lost(self: &Arc<Self>, key: Key, ticket: u64) {
        let mut jobs = self.jobs();
        let Some(held) = jobs.held.get_mut(&key) else { return };
        if held.waiting.remove(&ticket).is_some() {
            held.table.leave(ticket);
            return;
        }
        let mine = held.askers.iter().find(|(_, (of, _))| *of == ticket);
        let Some(step) = mine.map(|(step, _)| *step) else { return };
        let head = self.clone();
        let later = async move {
            tokio::time::sleep(ABANDONED).await;
            let mut jobs = head.jobs();
            let Jobs { held, news, .. } = &mut *jobs;
            let Some(held) = held.get_mut(&key) else { return };
            // Somebody else has come back to it meanwhile.
            if held.askers.get(&step).is_none_or(|(of, _)| *of == ticket) {
                Self::abandon(held, news, step);
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(later);
        }
    }
}

/// What a command about the job finds in its environment.
pub(super) fn about(slice: &Slice) -> DescribeReply {
    let launch = &slice.launch;
    let told = |pair: &&[u8]| {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        name.starts_with(b"SLURM_") || name == b"MUSTER_CONF"
    };
    let mut environment = Vec::new();
    for pair in launch.environment.split(|b| *b == 0).filter(told) {
        environment.extend_from_slice(pair);
        environment.push(0);
    }
    DescribeReply {
        job: launch.job,
        attempt: launch.attempt,
        nodes: launch.nodes.clone(),
        environment: environment.into(),
        kill_wait_seconds: launch.kill_wait_seconds,
        job_name: launch.job_name.clone(),
        array_job: launch.array_job,
        array_task: launch.array_task,
        user: launch.user.as_ref().map(|u| u.name.clone()).unwrap_or_default(),
        restarts: launch.restarts,
    }
}

/// Who asked for a step, as long as the stream lasts.
#[derive(Debug)]
pub(super) struct Asker {
    head: Arc<Head>,
    key: Key,
    ticket: u64,
    news: mpsc::Receiver<Result<StepNews, Status>>,
}

impl Stream for Asker {
    type Item = Result<StepNews, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.news.poll_recv(cx)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.head.lost(self.key, self.ticket);
    }
}

/// For callers without a slice.
pub(super) fn missing(node: &str, job: u32, why: &Missing) -> Status {
    why.status(node, job)
}
