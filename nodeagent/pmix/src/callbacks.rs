//! What the library asks of us. It calls on its own thread, which must not be held up: everything
//! here takes a note, says a message, and returns.

use std::ffi::{CStr, c_char, c_int, c_void};

use muster_proto::shim::v1::pmix_output::Kind as Told;
use muster_proto::v1::Aborted;

use crate::abi::{Done, ERROR, Info, Modex, Module, NOT_FOUND, OPERATION_SUCCEEDED, Proc, SUCCESS};
use crate::exchange::{Back, exchange};

/// What a group of nodes is for: a fence, or to be connected.
const FENCE: u8 = b'f';
const CONNECT: u8 = b'c';
const DISCONNECT: u8 = b'd';

/// The module that the library is given.
pub(crate) fn module() -> &'static mut Module {
    Box::leak(Box::new(Module {
        client_connected: Some(connected),
        client_finalized: Some(finalized),
        abort: Some(abort),
        fence_nb: Some(fence),
        direct_modex: Some(direct_modex),
        connect: Some(connect),
        disconnect: Some(disconnect),
        ..Module::default()
    }))
}

/// # Safety
/// The library passes one live proc.
unsafe fn rank(proc: *const Proc) -> u32 {
    // SAFETY: as above; NULL is answered all the same.
    unsafe { proc.as_ref() }.map_or(0, |proc| proc.rank)
}

/// # Safety
/// `procs` is the start of `count` live procs, or NULL.
unsafe fn ranks(procs: *const Proc, count: usize) -> Vec<u32> {
    if procs.is_null() {
        return vec![crate::abi::RANK_WILDCARD];
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(procs, count) }.iter().map(|proc| proc.rank).collect()
}

/// # Safety
/// `data` is the start of `length` live bytes, or NULL.
unsafe fn bytes<'a>(data: *const c_char, length: usize) -> &'a [u8] {
    match data.is_null() || length == 0 {
        true => &[],
        // SAFETY: as above.
        false => unsafe { std::slice::from_raw_parts(data.cast(), length) },
    }
}

unsafe extern "C" fn connected(
    proc: *const Proc,
    _: *mut c_void,
    _: Done,
    _: *mut c_void,
) -> c_int {
    if let Some(exchange) = exchange() {
        // SAFETY: the library's proc.
        exchange.say(Told::Joined(unsafe { rank(proc) }));
    }
    OPERATION_SUCCEEDED
}

unsafe extern "C" fn finalized(
    proc: *const Proc,
    _: *mut c_void,
    _: Done,
    _: *mut c_void,
) -> c_int {
    if let Some(exchange) = exchange() {
        // SAFETY: the library's proc.
        exchange.say(Told::Left(unsafe { rank(proc) }));
    }
    OPERATION_SUCCEEDED
}

unsafe extern "C" fn abort(
    proc: *const Proc,
    _: *mut c_void,
    status: c_int,
    message: *const c_char,
    _: *mut Proc,
    _: usize,
    _: Done,
    _: *mut c_void,
) -> c_int {
    let Some(exchange) = exchange() else { return ERROR };
    // SAFETY: NULL or a C string, copied at once.
    let said = unsafe {
        match message.is_null() {
            true => String::new(),
            false => CStr::from_ptr(message).to_string_lossy().trim().to_owned(),
        }
    };
    let text = match said.as_str() {
        "" | "N/A" => "has aborted the step".to_owned(),
        said => format!("has aborted the step: {said}"),
    };
    let code = Some(status.rem_euclid(256).cast_unsigned());
    // SAFETY: the library's proc.
    let task = unsafe { rank(proc) };
    exchange.say(Told::Aborted(Aborted { task, code, text }));
    OPERATION_SUCCEEDED
}

unsafe extern "C" fn fence(
    procs: *const Proc,
    count: usize,
    _: *const Info,
    _: usize,
    data: *mut c_char,
    length: usize,
    tell: Modex,
    mark: *mut c_void,
) -> c_int {
    let Some(exchange) = exchange() else { return ERROR };
    // SAFETY: the library's procs and bytes.
    let (ranks, piece) = unsafe { (ranks(procs, count), bytes(data, length)) };
    let back = Back::Modex(tell, mark as usize);
    if exchange.gather(FENCE, &ranks, piece, back) {
        finish(back, SUCCESS, piece.to_vec());
    }
    SUCCESS
}

unsafe extern "C" fn direct_modex(
    proc: *const Proc,
    _: *const Info,
    _: usize,
    tell: Modex,
    mark: *mut c_void,
) -> c_int {
    let Some(exchange) = exchange() else { return ERROR };
    // SAFETY: the library's proc.
    match exchange.ask(unsafe { rank(proc) }, Back::Modex(tell, mark as usize)) {
        true => SUCCESS,
        false => NOT_FOUND,
    }
}

unsafe extern "C" fn connect(
    procs: *const Proc,
    count: usize,
    _: *const Info,
    _: usize,
    tell: Done,
    mark: *mut c_void,
) -> c_int {
    // SAFETY: the library's procs.
    together(CONNECT, &unsafe { ranks(procs, count) }, tell, mark)
}

unsafe extern "C" fn disconnect(
    procs: *const Proc,
    count: usize,
    _: *const Info,
    _: usize,
    tell: Done,
    mark: *mut c_void,
) -> c_int {
    // SAFETY: the library's procs.
    together(DISCONNECT, &unsafe { ranks(procs, count) }, tell, mark)
}

fn together(what: u8, ranks: &[u32], tell: Done, mark: *mut c_void) -> c_int {
    let Some(exchange) = exchange() else { return ERROR };
    match exchange.gather(what, ranks, &[], Back::Done(tell, mark as usize)) {
        true => OPERATION_SUCCEEDED,
        false => SUCCESS,
    }
}

/// Tells the library how something ended. It keeps the bytes until it gives them back.
pub(crate) fn finish(back: Back, status: c_int, data: Vec<u8>) {
    match back {
        Back::Done(Some(tell), mark) => {
            // SAFETY: the library's own function and mark, used once.
            unsafe { tell(status, mark as *mut c_void) };
        }
        Back::Modex(Some(tell), mark) => {
            let data = Box::new(data);
            let (start, length) = (data.as_ptr().cast(), data.len());
            let owner = Box::into_raw(data).cast();
            // SAFETY: as above; the bytes live until `release` takes their owner.
            unsafe { tell(status, start, length, mark as *mut c_void, Some(release), owner) };
        }
        Back::Done(None, _) | Back::Modex(None, _) => {}
    }
}

unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: what `finish` has let go of, given back once.
    drop(unsafe { Box::from_raw(owner.cast::<Vec<u8>>()) });
}

/// The library has what another node asked for; the mark is our number for the question.
pub(crate) unsafe extern "C" fn found(
    status: c_int,
    data: *mut c_char,
    length: usize,
    mark: *mut c_void,
) {
    if let Some(exchange) = exchange() {
        // SAFETY: the library's bytes, copied at once.
        exchange.tell(mark as usize as u64, status, unsafe { bytes(data, length) });
    }
}
