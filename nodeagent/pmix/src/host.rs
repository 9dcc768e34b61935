//! The process: it prepares the tasks of its node, says that it is ready, passes on what the library
//! asks and what others answer, and ends when the shim closes the stream.

use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use muster_proto::shim::v1::pmix_input::Kind as Tell;
use muster_proto::shim::v1::pmix_output::Kind as Told;
use muster_proto::shim::v1::{PmixInput, PmixOrder, PmixReady, PmixTask};
use muster_proto::v1::{Answer, Gathered, Question};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{getgid, getuid};
use prost::Message as _;

use crate::abi::{ERROR, NOT_FOUND, Proc, SUCCESS};
use crate::callbacks::{self, finish};
use crate::exchange::{self, Exchange};
use crate::infos;
use crate::library::Library;

/// More in one message is a fault.
const LONGEST: usize = 32 << 20;
/// Signals to all processes of the step are the tasks': this one ends with its stream.
const NOT_OURS: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGTSTP,
];

/// `muster pmix-host`: its standard input is a stream to the step's shim.
#[must_use]
pub fn main() -> i32 {
    for number in NOT_OURS {
        // SAFETY: ignoring a signal runs no code.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
    // SAFETY: descriptor 0 is this process's, and used by nothing else.
    let mut speech = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let order = match next(&mut speech) {
        Ok(Some(PmixInput { kind: Some(Tell::Order(order)) })) => order,
        _ => {
            eprintln!("muster pmix-host: a step's shim starts this command");
            return 1;
        }
    };
    match serve(order, &mut speech) {
        Ok(()) => 0,
        Err(text) => {
            let _ = exchange::say(&mut speech, Told::Failed(text));
            1
        }
    }
}

fn next(from: &mut UnixStream) -> io::Result<Option<PmixInput>> {
    let mut head = [0u8; 4];
    match from.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0u8; length];
    from.read_exact(&mut body)?;
    PmixInput::decode(body.as_slice()).map(Some).map_err(io::Error::other)
}

fn serve(order: PmixOrder, speech: &mut UnixStream) -> Result<(), String> {
    let library = Library::load(&order.library).map_err(|e| e.to_string())?;
    // Short: what is in it are sockets, whose paths have a bound.
    let directory = tempfile::Builder::new()
        .prefix("muster-pmix.")
        .tempdir()
        .map_err(|e| format!("make a directory in {}: {e}", std::env::temp_dir().display()))?;
    let path = directory.path().to_string_lossy().into_owned();
    let clone = speech.try_clone().map_err(|e| format!("the stream to the shim: {e}"))?;
    let exchange = Exchange::begin(order, clone);
    let order = exchange.order();
    let mut own = infos::of_host(order, &path);
    library.init(callbacks::module(), &mut own.list).map_err(|e| e.to_string())?;
    let tasks = prepare(&library, order, &path).map_err(|e| e.to_string())?;
    exchange.say(Told::Ready(PmixReady { tasks, directory: path }));
    while let Ok(Some(message)) = next(speech) {
        match message.kind {
            Some(Tell::Gathered(gathered)) => passed(exchange, gathered),
            Some(Tell::Question(question)) => asked(&library, exchange, &question),
            Some(Tell::Answer(answer)) => answered(exchange, answer),
            Some(Tell::Order(_)) | None => {}
        }
    }
    library.finalize();
    drop(directory);
    Ok(())
}

/// Tells the library of the step, and of each task that will come.
fn prepare(
    library: &Library,
    order: &PmixOrder,
    directory: &str,
) -> Result<Vec<PmixTask>, crate::library::LibraryError> {
    let ranks = order.nodes.get(order.index as usize).map_or(&[][..], |node| &node.tasks);
    let mut about = infos::of_step(library, order, directory);
    library.register_namespace(&order.namespace, ranks.len(), &mut about.list)?;
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mut tasks = Vec::new();
    for rank in ranks {
        let proc = Proc::new(&order.namespace, *rank);
        library.register_client(&proc, uid, gid)?;
        let environment = library.environment(&proc)?;
        tasks.push(PmixTask { environment: environment.into_iter().map(Into::into).collect() });
    }
    Ok(tasks)
}

fn passed(exchange: &Exchange, gathered: Gathered) {
    if let Some(back) = exchange.gathered(&gathered.group, gathered.round) {
        let status = if gathered.fault.is_empty() { SUCCESS } else { ERROR };
        finish(back, status, gathered.pieces.concat());
    }
}

fn asked(library: &Library, exchange: &Exchange, question: &Question) {
    let Some(own) = exchange.asked(question.node, question.number) else { return };
    let rank = question.data.as_ref().try_into().map(u32::from_le_bytes);
    let proc = rank.map(|rank| Proc::new(&exchange.order().namespace, rank));
    match proc.map(|proc| library.ask(&proc, callbacks::found, own)) {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => exchange.tell(own, NOT_FOUND, &[]),
    }
}

fn answered(exchange: &Exchange, answer: Answer) {
    if let Some(back) = exchange.answered(answer.number) {
        finish(back, answer.status, answer.data.to_vec());
    }
}
