//! Loading the library, and its calls.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::null_mut;

use crate::abi::{
    DirectRequest, ErrorString, Generate, Info, Module, OPERATION_SUCCEEDED, Proc, RegisterClient,
    RegisterNamespace, Response, SUCCESS, ServerFinalize, ServerInit, SetupFork,
};

/// Why there is no PMIx here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    #[error(
        "{name} cannot be loaded ({fault}): install PMIx (libpmix2), or name its file in \
             agent.pmix_library"
    )]
    Load { name: String, fault: String },
    #[error("{name} has no {symbol}: PMIx 3.0 or later is needed")]
    Symbol { name: String, symbol: &'static str },
    #[error("{call}: {text} ({status})")]
    Call { call: &'static str, status: c_int, text: String },
}

/// The loaded library. It is never unloaded: its threads run to the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library {
    init: ServerInit,
    finalize: ServerFinalize,
    regex: Generate,
    ppn: Generate,
    register_namespace: RegisterNamespace,
    register_client: RegisterClient,
    setup_fork: SetupFork,
    direct_request: DirectRequest,
    error_string: ErrorString,
}

impl Library {
    pub(crate) fn load(name: &str) -> Result<Library, LibraryError> {
        let file = CString::new(name).unwrap_or_default();
        // Its plugins find their symbols in what is loaded globally.
        // SAFETY: runs the initialisers of a library that the admin has named.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            // SAFETY: after a failure dlerror has a text, copied at once.
            let fault = unsafe {
                let text = libc::dlerror();
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            return Err(LibraryError::Load {
                name: name.to_owned(),
                fault: fault.unwrap_or_else(|| "for no stated reason".to_owned()),
            });
        }
        let find = |symbol: &'static CStr| -> Result<*mut c_void, LibraryError> {
            // SAFETY: the handle is the library's.
            let found = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
            let symbol = symbol.to_str().expect("ASCII");
            match found.is_null() {
                false => Ok(found),
                true => Err(LibraryError::Symbol { name: name.to_owned(), symbol }),
            }
        };
        // SAFETY: each symbol has the type that the library's headers give it.
        unsafe {
            use std::mem::transmute;
            Ok(Library {
                init: transmute::<*mut c_void, ServerInit>(find(c"PMIx_server_init")?),
                finalize: transmute::<*mut c_void, ServerFinalize>(find(c"PMIx_server_finalize")?),
                regex: transmute::<*mut c_void, Generate>(find(c"PMIx_generate_regex")?),
                ppn: transmute::<*mut c_void, Generate>(find(c"PMIx_generate_ppn")?),
                register_namespace: transmute::<*mut c_void, RegisterNamespace>(find(
                    c"PMIx_server_register_nspace",
                )?),
                register_client: transmute::<*mut c_void, RegisterClient>(find(
                    c"PMIx_server_register_client",
                )?),
                setup_fork: transmute::<*mut c_void, SetupFork>(find(c"PMIx_server_setup_fork")?),
                direct_request: transmute::<*mut c_void, DirectRequest>(find(
                    c"PMIx_server_dmodex_request",
                )?),
                error_string: transmute::<*mut c_void, ErrorString>(find(c"PMIx_Error_string")?),
            })
        }
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<(), LibraryError> {
        if status == SUCCESS || status == OPERATION_SUCCEEDED {
            return Ok(());
        }
        // SAFETY: the library's own static text.
        let text = unsafe {
            let text = (self.error_string)(status);
            match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        };
        Err(LibraryError::Call { call, status, text })
    }

    /// Starts the library's threads. The module is kept by the library for good.
    pub(crate) fn init(
        &self,
        module: &'static mut Module,
        infos: &mut [Info],
    ) -> Result<(), LibraryError> {
        // SAFETY: both live; the library copies the infos.
        let status = unsafe { (self.init)(module, infos.as_mut_ptr(), infos.len()) };
        self.check("PMIx_server_init", status)
    }

    pub(crate) fn finalize(&self) {
        // SAFETY: called once, at the end.
        let _ = unsafe { (self.finalize)() };
    }

    /// Nodes or ranks in the library's short form, where that is text.
    fn generate(&self, call: Generate, from: &str) -> Option<CString> {
        let from = CString::new(from).ok()?;
        let mut out = null_mut();
        // SAFETY: a C string in, one that the library has allocated out.
        let status = unsafe { call(from.as_ptr(), &raw mut out) };
        if status != SUCCESS || out.is_null() {
            return None;
        }
        // SAFETY: at least its name is text, up to the first NUL.
        let text = unsafe { CStr::from_ptr(out) }.to_owned();
        // A compressed one is no text, and goes by another type.
        let is_text = text.to_bytes().starts_with(b"pmix");
        // SAFETY: allocated by the library for us.
        unsafe { libc::free(out.cast()) };
        is_text.then_some(text)
    }

    pub(crate) fn node_map(&self, nodes: &str) -> Option<CString> {
        self.generate(self.regex, nodes)
    }

    pub(crate) fn rank_map(&self, ranks: &str) -> Option<CString> {
        self.generate(self.ppn, ranks)
    }

    pub(crate) fn register_namespace(
        &self,
        namespace: &str,
        local: usize,
        infos: &mut [Info],
    ) -> Result<(), LibraryError> {
        let namespace = Proc::new(namespace, 0).namespace;
        let local = c_int::try_from(local).unwrap_or(c_int::MAX);
        // Without a callback it is done on return.
        // SAFETY: everything lives until then.
        let status = unsafe {
            (self.register_namespace)(
                namespace.as_ptr(),
                local,
                infos.as_mut_ptr(),
                infos.len(),
                None,
                null_mut(),
            )
        };
        self.check("PMIx_server_register_nspace", status)
    }

    pub(crate) fn register_client(
        &self,
        proc: &Proc,
        uid: u32,
        gid: u32,
    ) -> Result<(), LibraryError> {
        // SAFETY: as above.
        let status =
            unsafe { (self.register_client)(proc, uid, gid, null_mut(), None, null_mut()) };
        self.check("PMIx_server_register_client", status)
    }

    /// What a task has to find in its environment.
    pub(crate) fn environment(&self, proc: &Proc) -> Result<Vec<Vec<u8>>, LibraryError> {
        let mut list: *mut *mut libc::c_char = null_mut();
        // SAFETY: the library grows the list, which begins as none.
        let status = unsafe { (self.setup_fork)(proc, &raw mut list) };
        self.check("PMIx_server_setup_fork", status)?;
        let mut all = Vec::new();
        // SAFETY: a list of C strings that ends with NULL; a few hundred bytes that stay allocated.
        unsafe {
            while !list.is_null() && !(*list).is_null() {
                all.push(CStr::from_ptr(*list).to_bytes().to_vec());
                list = list.add(1);
            }
        }
        Ok(all)
    }

    /// Asks for what a task of this node has put; the answer comes by the callback.
    pub(crate) fn ask(&self, proc: &Proc, tell: Response, number: u64) -> Result<(), LibraryError> {
        // SAFETY: the number is no address, and comes back as it is.
        let status = unsafe { (self.direct_request)(proc, tell, number as usize as *mut c_void) };
        self.check("PMIx_server_dmodex_request", status)
    }
}
