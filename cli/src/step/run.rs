//! A step from its grant to its end: one stream to each of its nodes, output to its places, input
//! and signals to the tasks.
//!
//! One loop takes in everything, and never waits for a terminal or a disk: those have threads of
//! their own. A stream that breaks is taken up again where it was.

use std::time::Duration;

use muster_proto::v1::step_news::Kind as News;
use muster_proto::v1::{CloseStepRequest, ExitStatus, OpenStepRequest, StepGrant, StepNews};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use super::agents::{AgentError, Agents, Client, PATIENCE, PAUSE, is_passing};
use super::course::{Course, Event, QUEUE};
use super::exchange::{self, Letter};
use super::wish::Wish;
use crate::exit;

/// The step among others that have one world with it.
pub(crate) type Company = (exchange::Place, mpsc::UnboundedReceiver<Letter>);

/// A step that has its own.
pub(crate) fn alone() -> Company {
    (exchange::Place::default(), mpsc::unbounded_channel().1)
}

/// The open step.
pub(crate) struct Step {
    pub(crate) grant: StepGrant,
    pub(crate) head: String,
    news: Streaming<StepNews>,
    pub(crate) request: OpenStepRequest,
}

/// Opens a step on the job's first node; says on stderr what it waits for.
pub(crate) async fn open(
    agents: &Agents,
    head: &str,
    request: OpenStepRequest,
    quiet: bool,
    patience: Option<Duration>,
) -> Result<Step, AgentError> {
    let open = async |mut client: Client| {
        client.open(request.clone()).await.map(tonic::Response::into_inner)
    };
    let mut news = agents.call(head, open).await?;
    let until = patience.filter(|p| !p.is_zero()).map(|p| Instant::now() + p);
    let mut told = false;
    loop {
        let next = async {
            match until {
                Some(until) => tokio::time::timeout_at(until, news.message()).await,
                None => Ok(news.message().await),
            }
        };
        match next.await {
            Err(_) => {
                let slurm = "Unable to satisfy the request within --immediate".to_owned();
                return Err(AgentError::Refused { slurm, message: String::new() });
            }
            Ok(Ok(Some(StepNews { kind: Some(News::Granted(grant)) }))) => {
                if told && !quiet {
                    let id = request.job;
                    exit::say("srun", &format!("Step created for job {id}"));
                }
                let head = head.to_owned();
                return Ok(Step { grant, head, news, request });
            }
            Ok(Ok(Some(StepNews { kind: Some(News::Waiting(why)) }))) => {
                told = true;
                if !quiet {
                    let id = request.job;
                    let text =
                        format!("Job {id} step creation temporarily disabled, retrying ({why})");
                    exit::say("srun", &text);
                }
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => {
                // The agent goes down: its successor has forgotten who waited.
                news = agents.call(head, open).await?;
            }
            Ok(Err(status)) if is_passing(&status) => news = agents.call(head, open).await?,
            Ok(Err(status)) => return Err(AgentError::of(head, &status)),
        }
    }
}

/// How a step ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
}

/// Runs a step that was granted.
pub(crate) async fn run(
    agents: &Agents,
    step: Step,
    wish: &Wish,
    environment: Vec<u8>,
    signals: &mut mpsc::UnboundedReceiver<i32>,
    company: Company,
) -> Result<Ended, String> {
    let programs = programs(wish, step.grant.tasks)?;
    let (events, mut taken) = mpsc::channel(QUEUE);
    agents.learn(&step.grant.nodes);
    let (place, mut letters) = company;
    let mut course = Course::new(agents.clone(), &step.grant, wish, place, events.clone());
    course.start(&programs, environment, &step.grant);
    let Step { grant, head, news, request } = step;
    follow_news(agents.clone(), head.clone(), news, request, grant.step, events.clone());
    let (tell, mut written) = mpsc::unbounded_channel();
    course.open_places(tell);
    course.open_input();
    loop {
        let deadline = course.deadline();
        let event = tokio::select! {
            Some(event) = taken.recv() => Some(event),
            Some(done) = written.recv() => Some(Event::Written(done)),
            Some(signal) = signals.recv() => Some(Event::Signal(signal)),
            Some(letter) = letters.recv() => {
                course.letter(letter).await;
                continue;
            }
            () = sleep_until(deadline), if deadline.is_some() => None,
        };
        match event {
            Some(event) => course.take(event).await,
            None => course.due().await,
        }
        if course.is_done() {
            break;
        }
    }
    course.finish().await;
    let code = course.code();
    let close = course.closing();
    let closed = agents.call(&head, async |mut client| client.close(close.clone()).await);
    // A job that is over has closed its steps itself.
    let _ = tokio::time::timeout(Duration::from_secs(5), closed).await;
    Ok(Ended { code })
}

/// Lets go of a step that was granted and whose tasks are not to be.
pub(crate) async fn give_up(agents: &Agents, step: &Step) {
    let request = CloseStepRequest {
        job: step.grant.job,
        step: step.grant.step,
        status: Some(ExitStatus { code: 1, signal: 0 }),
        ..CloseStepRequest::default()
    };
    let closed = agents.call(&step.head, async |mut client| client.close(request.clone()).await);
    let _ = tokio::time::timeout(Duration::from_secs(5), closed).await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn programs(wish: &Wish, tasks: u32) -> Result<Vec<Vec<String>>, String> {
    if !wish.multi_prog {
        return Ok(vec![wish.command.clone()]);
    }
    let path = &wish.command[0];
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    super::multiprog::read(&text, tasks)
}

/// Keeps the head's stream open for the whole of the step, over restarts of the agent.
fn follow_news(
    agents: Agents,
    head: String,
    mut news: Streaming<StepNews>,
    request: OpenStepRequest,
    step: u32,
    events: mpsc::Sender<Event>,
) {
    let again = OpenStepRequest { resume: Some(step), ..request };
    tokio::spawn(async move {
        loop {
            while let Ok(Some(message)) = news.message().await {
                if events.send(Event::News(message)).await.is_err() {
                    return;
                }
            }
            let until = Instant::now() + PATIENCE;
            loop {
                tokio::time::sleep(PAUSE).await;
                let Ok(mut client) = agents.of(&head).await else { return };
                match client.open(again.clone()).await {
                    Ok(stream) => {
                        news = stream.into_inner();
                        break;
                    }
                    Err(status) if is_passing(&status) && Instant::now() < until => {}
                    Err(_) => return,
                }
            }
        }
    });
}
