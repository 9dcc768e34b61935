//! `libpmix.so.2` as its headers declare it, from 3.0 to 5.0: the structs have not changed since.

use std::ffi::{c_char, c_int, c_void};

/// Sizes of the two kinds of names, with their NUL, in bytes.
pub const NAMESPACE: usize = 256;
pub const KEY: usize = 512;

/// Status codes.
pub const SUCCESS: c_int = 0;
pub const ERROR: c_int = -1;
pub const NOT_FOUND: c_int = -46;
/// Done at once: the callback is not called.
pub const OPERATION_SUCCEEDED: c_int = -157;

/// Types of values.
pub const BOOL: u16 = 1;
pub const STRING: u16 = 3;
pub const UINT16: u16 = 13;
pub const UINT32: u16 = 14;
pub const INFO: u16 = 24;
pub const DATA_ARRAY: u16 = 39;
pub const PROC_RANK: u16 = 40;

/// All ranks of a namespace.
pub const RANK_WILDCARD: u32 = u32::MAX - 1;

/// `pmix_proc_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Proc {
    pub namespace: [c_char; NAMESPACE],
    pub rank: u32,
}

/// The union in `pmix_value_t`, as far as it is used here, and as big as it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Data {
    pub flag: bool,
    pub string: *const c_char,
    pub uint16: u16,
    pub uint32: u32,
    pub array: *mut DataArray,
    pub room: [u64; 3],
}

/// `pmix_value_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Value {
    pub kind: u16,
    pub data: Data,
}

/// `pmix_info_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    pub key: [c_char; KEY],
    pub flags: u32,
    pub value: Value,
}

/// `pmix_data_array_t`.
#[repr(C)]
pub struct DataArray {
    pub kind: u16,
    pub size: usize,
    pub array: *mut c_void,
}

/// `pmix_op_cbfunc_t`.
pub type Done = Option<unsafe extern "C" fn(c_int, *mut c_void)>;
/// `pmix_release_cbfunc_t`.
pub type Release = Option<unsafe extern "C" fn(*mut c_void)>;
/// `pmix_modex_cbfunc_t`.
pub type Modex =
    Option<unsafe extern "C" fn(c_int, *const c_char, usize, *mut c_void, Release, *mut c_void)>;
/// `pmix_dmodex_response_fn_t`.
pub type Response = unsafe extern "C" fn(c_int, *mut c_char, usize, *mut c_void);

pub type Client = unsafe extern "C" fn(*const Proc, *mut c_void, Done, *mut c_void) -> c_int;
pub type Abort = unsafe extern "C" fn(
    *const Proc,
    *mut c_void,
    c_int,
    *const c_char,
    *mut Proc,
    usize,
    Done,
    *mut c_void,
) -> c_int;
pub type Fence = unsafe extern "C" fn(
    *const Proc,
    usize,
    *const Info,
    usize,
    *mut c_char,
    usize,
    Modex,
    *mut c_void,
) -> c_int;
pub type DirectModex =
    unsafe extern "C" fn(*const Proc, *const Info, usize, Modex, *mut c_void) -> c_int;
pub type Connect =
    unsafe extern "C" fn(*const Proc, usize, *const Info, usize, Done, *mut c_void) -> c_int;

/// One that we do not have.
pub type Absent = Option<unsafe extern "C" fn()>;

/// `pmix_server_module_t`. A library of an older version knows fewer at the end.
#[repr(C)]
#[derive(Default)]
pub struct Module {
    pub client_connected: Option<Client>,
    pub client_finalized: Option<Client>,
    pub abort: Option<Abort>,
    pub fence_nb: Option<Fence>,
    pub direct_modex: Option<DirectModex>,
    pub publish: Absent,
    pub lookup: Absent,
    pub unpublish: Absent,
    pub spawn: Absent,
    pub connect: Option<Connect>,
    pub disconnect: Option<Connect>,
    /// From `register_events` to `client_connected2`, and room for what a newer one knows.
    pub others: [Absent; 32],
}

/// What the library is asked for.
pub type ServerInit = unsafe extern "C" fn(*mut Module, *mut Info, usize) -> c_int;
pub type ServerFinalize = unsafe extern "C" fn() -> c_int;
pub type Generate = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> c_int;
pub type RegisterNamespace =
    unsafe extern "C" fn(*const c_char, c_int, *mut Info, usize, Done, *mut c_void) -> c_int;
pub type RegisterClient =
    unsafe extern "C" fn(*const Proc, u32, u32, *mut c_void, Done, *mut c_void) -> c_int;
pub type SetupFork = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> c_int;
pub type DirectRequest = unsafe extern "C" fn(*const Proc, Response, *mut c_void) -> c_int;
pub type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

impl Proc {
    /// A longer name than fits is cut.
    #[must_use]
    pub fn new(namespace: &str, rank: u32) -> Proc {
        let mut proc = Proc { namespace: [0; NAMESPACE], rank };
        copy(namespace, &mut proc.namespace);
        proc
    }
}

impl Info {
    pub(crate) fn new(key: &str, kind: u16, data: Data) -> Info {
        let mut info = Info { key: [0; KEY], flags: 0, value: Value { kind, data } };
        copy(key, &mut info.key);
        info
    }
}

fn copy(text: &str, to: &mut [c_char]) {
    let most = to.len() - 1;
    for (place, byte) in to[..most].iter_mut().zip(text.bytes()) {
        *place = byte.cast_signed();
    }
}
