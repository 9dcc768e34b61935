//! `sattach`: a look at a running step: its output from now on, and its end.

use muster_model::Hostlist;
use muster_proto::v1::step_input::Kind as Ask;
use muster_proto::v1::step_output::Kind as Said;
use muster_proto::v1::{AttachStep, ListStepsRequest, StepInput, StepOutput};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::agents::{AgentError, Agents};
use super::job;
use super::options::Bad;
use super::report::Report;
use super::sinks::{Manner, Of, Place};
use super::srun::{Stop, config, runtime};
use crate::exit;
use crate::getopt::{self, Spec, Takes, both, long};

const PROGRAM: &str = "sattach";

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("help", 'h', Takes::Nothing),
        both("label", 'l', Takes::Nothing),
        both("quiet", 'Q', Takes::Nothing),
        long("usage", Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        long("layout", Takes::Nothing),
    ],
};

const HELP: &str = "\
Usage: sattach [OPTIONS] JOB.STEP
  -l, --label      each line with the number of its task
      --layout     where the tasks are, and nothing else
  -Q, --quiet      say nothing of one's own
  -V, --version    the version
";

/// The command.
#[must_use]
pub fn sattach(words: &[String]) -> i32 {
    match begin(words) {
        Ok(code) => code,
        Err(stop) => stop.say(PROGRAM),
    }
}

fn begin(words: &[String]) -> Result<i32, Stop> {
    let parsed = getopt::parse(&SPEC, words).map_err(|usage| Stop::Bad(Bad::Usage(usage)))?;
    if parsed.has("help") || parsed.has("usage") {
        exit::print(HELP);
        return Ok(exit::OK);
    }
    if parsed.has("version") {
        exit::print(&format!("{}\n", crate::query::VERSION));
        return Ok(exit::OK);
    }
    let [target] = parsed.operands.as_slice() else {
        return Err(Stop::refused(None, "one JOB.STEP is needed"));
    };
    let Some((pick, step)) = job::step(target) else {
        return Err(Stop::refused(None, format!("invalid step id \"{target}\"")));
    };
    let config = config()?;
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let home = job::home(&config, &pick, false).await?;
        let agents = Agents::new(config);
        look(&agents, &home.head, home.job, step, &parsed).await
    });
    runtime.shutdown_background();
    code
}

async fn look(
    agents: &Agents,
    head: &str,
    job: u32,
    step: u32,
    parsed: &getopt::Parsed,
) -> Result<i32, Stop> {
    let refuse = |error: AgentError| Stop::refused(error.detail(), error.slurm_text());
    let request = ListStepsRequest { job, ended: false };
    let list = agents.call(head, async |mut client| client.list(request).await);
    let steps = list.await.map_err(refuse)?.into_inner().steps;
    let found = steps.into_iter().find(|s| s.step == step);
    let found =
        found.ok_or_else(|| Stop::refused(None, format!("step {job}.{step} does not run")))?;
    let nodes = Hostlist::parse(&found.nodes).unwrap_or_default().0;
    if parsed.has("layout") {
        exit::print(&format!(
            "Job step layout:\n\t{} tasks, {} nodes ({})\n",
            found.tasks, found.node_count, found.nodes
        ));
        return Ok(exit::OK);
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let digits = found.tasks.saturating_sub(1).max(1).ilog10() as usize + 1;
    let manner = Manner { label: parsed.has("label"), unbuffered: false, digits };
    let places = [1, 2].map(|stream| Place::own(stream, manner, tell.clone()));
    let [Ok(out), Ok(err)] = places else {
        return Err(Stop::refused(None, "cannot write to the terminal"));
    };
    let (events, mut taken) = mpsc::channel::<(usize, Option<Result<StepOutput, Status>>)>(256);
    for (at, node) in nodes.iter().enumerate() {
        let (ask, asked) = mpsc::channel(1);
        let attach = AttachStep { job, step, ..AttachStep::default() };
        let first = StepInput { kind: Some(Ask::Attach(attach)) };
        ask.try_send(first).expect("a new queue has room");
        let mut client = agents.of(node).await.map_err(refuse)?;
        let events = events.clone();
        tokio::spawn(async move {
            // Held open: its end would say that nobody looks.
            let _ask = ask;
            match client.run(ReceiverStream::new(asked)).await {
                Err(status) => drop(events.send((at, Some(Err(status)))).await),
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(message)) = stream.message().await {
                        if events.send((at, Some(Ok(message)))).await.is_err() {
                            return;
                        }
                    }
                    let _ = events.send((at, None)).await;
                }
            }
        });
    }
    drop(events);
    let mut report = Report::default();
    let mut open: Vec<bool> = vec![true; nodes.len()];
    while open.contains(&true) {
        let (at, message) = tokio::select! {
            Some(event) = taken.recv() => event,
            Some(_) = told.recv() => continue,
            else => break,
        };
        match message {
            None => open[at] = false,
            Some(Err(status)) => {
                exit::error(PROGRAM, &format!("{}: {}", nodes[at], status.message()));
                report.fault();
                open[at] = false;
            }
            Some(Ok(message)) => match message.kind {
                Some(Said::Data(data)) => {
                    let of = Of { node: at, task: data.task, stream: data.stream };
                    let place = if data.stream == 1 { &out } else { &err };
                    let end = data.offset + data.data.len() as u64;
                    place.write(of, end, data.data, data.end);
                }
                Some(Said::Exit(exit)) => report.end(&nodes[at], exit),
                Some(Said::Failed(failed)) => {
                    exit::error(PROGRAM, &format!("{}: {}", nodes[at], failed.text));
                    report.fault();
                    open[at] = false;
                }
                Some(Said::Over(_)) => open[at] = false,
                _ => {}
            },
        }
    }
    out.finish();
    err.finish();
    for line in report.lines() {
        exit::error(PROGRAM, &line);
    }
    Ok(report.code())
}
