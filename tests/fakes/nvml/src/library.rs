//! The C functions, as NVIDIA's header declares them. Only what a program may ask of a machine is
//! here; a function that is missing fails that call alone in every caller that looks symbols up.
//!
//! A handle is a small number: GPU `i` is `i + 1`, instance `k` of it `(i + 1) * 256 + k + 1`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_ulonglong, c_void};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nv;

use crate::file::{Reader, Scene, Trouble};
use crate::machine::{Far, Gpu, Machine};

type Return = nv::nvmlReturn_t;
type Handle = nv::nvmlDevice_t;

const SUCCESS: Return = nv::nvmlReturn_enum_NVML_SUCCESS;
const UNINITIALIZED: Return = nv::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
const INVALID_ARGUMENT: Return = nv::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_SUPPORTED: Return = nv::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const NOT_FOUND: Return = nv::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
const INSUFFICIENT_SIZE: Return = nv::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
const TIMEOUT: Return = nv::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
const FUNCTION_NOT_FOUND: Return = nv::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND;
const GPU_IS_LOST: Return = nv::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
const UNKNOWN: Return = nv::nvmlReturn_enum_NVML_ERROR_UNKNOWN;

/// Handles of instances lie above this.
const INSTANCES: usize = 256;
/// An event set looks at the file this often while it waits.
const GLANCE: Duration = Duration::from_millis(10);
const MIB: u64 = 1 << 20;

struct Double {
    reader: Reader,
    /// `nvmlInit` calls that no `nvmlShutdown` answered.
    users: u32,
    begun: Instant,
    /// Events of the file that were there before, or were delivered, for each event set.
    delivered: Vec<Option<usize>>,
}

static DOUBLE: LazyLock<Mutex<Double>> = LazyLock::new(|| {
    Mutex::new(Double {
        reader: Reader::new(scene_file()),
        users: 0,
        begun: Instant::now(),
        delivered: Vec::new(),
    })
});

fn double() -> MutexGuard<'static, Double> {
    DOUBLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `MUSTER_FAKE_NVML`, or the file beside this very copy of the library.
fn scene_file() -> PathBuf {
    if let Some(path) = std::env::var_os("MUSTER_FAKE_NVML") {
        return path.into();
    }
    let own = nvmlShutdown as *const c_void;
    // SAFETY: a zeroed Dl_info is valid, and dladdr fills it for an address of this library; the
    // name it points to lives as long as the library is loaded.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        match libc::dladdr(own, &raw mut info) {
            0 => return PathBuf::new(),
            _ => CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned(),
        }
    };
    PathBuf::from(name).with_extension("toml")
}

fn machine(scene: &Scene) -> Machine {
    Machine::named(&scene.layout).unwrap_or_else(|| {
        eprintln!("fake NVML: layout {:?} is none of {:?}", scene.layout, crate::machine::LAYOUTS);
        Machine::named("none").expect("a machine without GPUs")
    })
}

/// `nvmlGpuFabricClique_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Clique {
    kind: u8,
    id: u32,
}

/// `nvmlGpuFabricInfo_v4_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FabricInfoV4 {
    cluster: [u8; 16],
    status: Return,
    cliques: [Clique; 64],
    count: c_uint,
    state: nv::nvmlGpuFabricState_t,
    health_mask: c_uint,
    health_summary: u8,
}

/// A device as a call sees it.
struct Seen {
    index: usize,
    /// Of a MIG instance.
    instance: Option<usize>,
    gpu: Gpu,
    machine: Machine,
    trouble: Trouble,
    begun: Instant,
}

impl Seen {
    fn name(&self) -> String {
        let name = self.trouble.name.as_deref().unwrap_or(self.gpu.name);
        match self.profile() {
            Some(profile) => format!("{name} MIG {profile}"),
            None => name.to_owned(),
        }
    }

    fn profile(&self) -> Option<&'static str> {
        Some(self.gpu.mig.as_ref()?[self.instance?])
    }

    fn uuid(&self) -> String {
        let at = self.index;
        match self.instance {
            Some(k) => format!("MIG-{at:08x}-0000-4000-8000-{k:012x}"),
            None => format!("GPU-{at:08x}-1111-4222-8333-444455556666"),
        }
    }

    /// MiB: `3g.20gb` has 20 GiB less what the driver keeps.
    fn memory_mib(&self) -> u64 {
        let of_profile = |profile: &str| {
            let gib = profile.split_once('.')?.1.strip_suffix("gb")?.parse::<u64>().ok()?;
            Some(gib * 1024 - 512)
        };
        self.profile().and_then(of_profile).unwrap_or(self.gpu.memory_mib)
    }

    fn used_mib(&self) -> u64 {
        let processes: u64 = self.trouble.processes.iter().map(|p| p.memory_mib).sum();
        processes + self.trouble.memory_used_mib
    }

    fn watts(&self) -> u32 {
        self.trouble.watts.unwrap_or(self.gpu.idle_watts)
    }
}

/// Waits for as many milliseconds as a file says. A call that hangs comes back when the file says so.
fn waited(mut scene: Scene, ms: impl Fn(&Scene) -> u64) -> Scene {
    let asked = Instant::now();
    while let Some(rest) = Duration::from_millis(ms(&scene)).checked_sub(asked.elapsed()) {
        std::thread::sleep(rest.min(GLANCE));
        scene = double().reader.look().clone();
    }
    scene
}

/// The device behind a handle, whatever is wrong with it.
fn find(handle: Handle) -> Result<Seen, Return> {
    let number = handle as usize;
    let (number, instance) = match number {
        0 => return Err(INVALID_ARGUMENT),
        n if n >= INSTANCES => (n / INSTANCES, Some(n % INSTANCES - 1)),
        n => (n, None),
    };
    let mut double = double();
    if double.users == 0 {
        return Err(UNINITIALIZED);
    }
    let begun = double.begun;
    let mut scene = double.reader.look().clone();
    drop(double);
    scene = waited(scene, |scene| scene.slow_ms);
    let machine = machine(&scene);
    let index = number - 1;
    let gpu = machine.gpus.get(index).ok_or(INVALID_ARGUMENT)?.clone();
    if instance.is_some_and(|k| gpu.mig.as_ref().is_none_or(|mig| k >= mig.len())) {
        return Err(NOT_FOUND);
    }
    let trouble = scene.trouble(index);
    Ok(Seen { index, instance, gpu, machine, trouble, begun })
}

/// The device behind a handle, if it answers.
fn seen(handle: Handle) -> Result<Seen, Return> {
    let seen = find(handle)?;
    match seen.trouble {
        Trouble { lost: true, .. } => Err(GPU_IS_LOST),
        Trouble { mute: true, .. } => Err(UNKNOWN),
        _ => Ok(seen),
    }
}

fn answer(result: Result<(), Return>) -> Return {
    result.err().unwrap_or(SUCCESS)
}

/// Stores a value where the caller wants it.
///
/// # Safety
/// `to` is null or may be written as a `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Return> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Stores a text with its end.
///
/// # Safety
/// `to` is null or has `length` bytes.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Result<(), Return> {
    if to.is_null() || text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller's promise, and the length was checked.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Stores a bit set.
///
/// # Safety
/// `to` is null or has `words` words.
unsafe fn put_bits(
    to: *mut c_ulong,
    words: c_uint,
    bits: std::ops::Range<u32>,
) -> Result<(), Return> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    for word in 0..words {
        let of_word = bits.clone().filter(|bit| bit / 64 == word);
        let value = of_word.fold(0, |value, bit| value | 1u64 << (bit % 64));
        // SAFETY: the caller's promise.
        unsafe { to.add(word as usize).write(value) };
    }
    Ok(())
}

/// Defines C functions whose body says `Result<(), Return>`.
macro_rules! calls {
    ($(fn $name:ident($($arg:ident: $of:ty),* $(,)?) $body:block)*) => {$(
        /// # Safety
        /// As NVIDIA's header asks: every pointer is null or points to what its type says.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $of),*) -> Return {
            let call = || -> Result<(), Return> { $body };
            answer(call())
        }
    )*};
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Return {
    let scene = double().reader.look().clone();
    let scene = waited(scene, |scene| scene.init_slow_ms);
    match scene.init_fails {
        0 => {
            double().users += 1;
            SUCCESS
        }
        fault => fault as Return,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Return {
    let mut double = double();
    if double.users == 0 {
        return UNINITIALIZED;
    }
    double.users -= 1;
    SUCCESS
}

calls! {
    fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) {
        unsafe { put_text(to, length, "570.86.15") }
    }

    fn nvmlSystemGetNVMLVersion(to: *mut c_char, length: c_uint) {
        unsafe { put_text(to, length, "12.570.86.15") }
    }

    fn nvmlSystemGetCudaDriverVersion_v2(to: *mut c_int) {
        unsafe { put(to, 12_080) }
    }

    fn nvmlDeviceGetCount_v2(to: *mut c_uint) {
        let mut double = double();
        if double.users == 0 {
            return Err(UNINITIALIZED);
        }
        let count = machine(double.reader.look()).gpus.len();
        unsafe { put(to, count as c_uint) }
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut Handle) {
        let handle = (index as usize + 1) as Handle;
        seen(handle)?;
        unsafe { put(to, handle) }
    }

    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut Handle) {
        if uuid.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        let wanted = unsafe { CStr::from_ptr(uuid) }.to_string_lossy().into_owned();
        let count = machine(double().reader.look()).gpus.len();
        let handles = (1..=count).map(|number| number as Handle);
        let mut all = handles.filter(|handle| seen(*handle).is_ok_and(|s| s.uuid() == wanted));
        unsafe { put(to, all.next().ok_or(NOT_FOUND)?) }
    }

    fn nvmlDeviceGetIndex(device: Handle, to: *mut c_uint) {
        let index = find(device)?.index;
        unsafe { put(to, index as c_uint) }
    }

    fn nvmlDeviceGetName(device: Handle, to: *mut c_char, length: c_uint) {
        unsafe { put_text(to, length, &seen(device)?.name()) }
    }

    fn nvmlDeviceGetUUID(device: Handle, to: *mut c_char, length: c_uint) {
        unsafe { put_text(to, length, &seen(device)?.uuid()) }
    }

    fn nvmlDeviceGetMinorNumber(device: Handle, to: *mut c_uint) {
        unsafe { put(to, seen(device)?.gpu.minor) }
    }

    fn nvmlDeviceGetPciInfo_v3(device: Handle, to: *mut nv::nvmlPciInfo_t) {
        let Gpu { domain, bus, .. } = seen(device)?.gpu;
        unsafe { put(to, pci(domain, bus, 0x2330_10de)) }
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, to: *mut nv::nvmlMemory_v2_t) {
        let seen = seen(device)?;
        let (total, used) = (seen.memory_mib() * MIB, seen.used_mib() * MIB);
        let version = unsafe { to.as_ref() }.ok_or(INVALID_ARGUMENT)?.version;
        let free = total.saturating_sub(used);
        let info = nv::nvmlMemory_v2_t { version, total, reserved: 0, free, used };
        unsafe { put(to, info) }
    }

    fn nvmlDeviceGetUtilizationRates(device: Handle, to: *mut nv::nvmlUtilization_t) {
        let seen = seen(device)?;
        if seen.gpu.mig.is_some() {
            return Err(NOT_SUPPORTED);
        }
        let (gpu, memory) = (seen.trouble.utilization, seen.trouble.memory_utilization);
        unsafe { put(to, nv::nvmlUtilization_t { gpu, memory }) }
    }

    fn nvmlDeviceGetTemperature(device: Handle, _sensor: c_uint, to: *mut c_uint) {
        unsafe { put(to, seen(device)?.trouble.temperature.unwrap_or(35)) }
    }

    fn nvmlDeviceGetPowerUsage(device: Handle, to: *mut c_uint) {
        unsafe { put(to, seen(device)?.watts() * 1000) }
    }

    fn nvmlDeviceGetTotalEnergyConsumption(device: Handle, to: *mut c_ulonglong) {
        let seen = seen(device)?;
        let running = seen.begun.elapsed().as_millis() as u64 * u64::from(seen.watts());
        unsafe { put(to, seen.trouble.energy_mj.unwrap_or(running)) }
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Handle, to: *mut c_ulonglong) {
        let hot = seen(device)?.trouble.overheated;
        let reasons = if hot { nv::nvmlClocksThrottleReasonHwThermalSlowdown } else { 1 };
        unsafe { put(to, reasons.into()) }
    }

    fn nvmlDeviceGetTotalEccErrors(
        device: Handle, kind: c_uint, _counter: c_uint, to: *mut c_ulonglong,
    ) {
        let count = seen(device)?.trouble.ecc_uncorrected;
        unsafe { put(to, if kind == 1 { count } else { 0 }) }
    }

    fn nvmlDeviceGetRemappedRows(
        device: Handle,
        corrected: *mut c_uint,
        uncorrected: *mut c_uint,
        pending: *mut c_uint,
        failed: *mut c_uint,
    ) {
        let trouble = seen(device)?.trouble;
        unsafe {
            put(corrected, 0)?;
            put(uncorrected, trouble.remap_pending.into())?;
            put(pending, trouble.remap_pending.into())?;
            put(failed, trouble.remap_failed.into())
        }
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: Handle, count: *mut c_uint, infos: *mut nv::nvmlProcessInfo_t,
    ) {
        let processes = seen(device)?.trouble.processes;
        let room = unsafe { count.as_ref() }.copied().ok_or(INVALID_ARGUMENT)? as usize;
        unsafe { put(count, processes.len() as c_uint)? };
        if room < processes.len() || infos.is_null() {
            return if processes.is_empty() { Ok(()) } else { Err(INSUFFICIENT_SIZE) };
        }
        for (at, process) in processes.iter().enumerate() {
            let info = nv::nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: process.memory_mib * MIB,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            };
            unsafe { infos.add(at).write(info) };
        }
        Ok(())
    }

    fn nvmlDeviceGetCpuAffinityWithinScope(
        device: Handle, words: c_uint, to: *mut c_ulong, _scope: c_uint,
    ) {
        let (first, count) = seen(device)?.gpu.cpus;
        unsafe { put_bits(to, words, first..first + count) }
    }

    fn nvmlDeviceGetMemoryAffinity(
        device: Handle, words: c_uint, to: *mut c_ulong, _scope: c_uint,
    ) {
        let numa = seen(device)?.gpu.numa;
        unsafe { put_bits(to, words, numa..numa + 1) }
    }

    fn nvmlDeviceGetTopologyCommonAncestor(one: Handle, other: Handle, to: *mut c_uint) {
        let (one, other) = (seen(one)?, seen(other)?);
        unsafe { put(to, one.machine.level(one.index, other.index)) }
    }

    fn nvmlDeviceGetP2PStatus(
        one: Handle, other: Handle, _capability: c_uint, to: *mut nv::nvmlGpuP2PStatus_t,
    ) {
        let (one, other) = (seen(one)?, seen(other)?);
        let status = match one.machine.are_peers(one.index, other.index) {
            true => nv::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK,
            false => nv::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED,
        };
        unsafe { put(to, status) }
    }

    fn nvmlDeviceGetNvLinkState(device: Handle, link: c_uint, to: *mut c_uint) {
        let seen = seen(device)?;
        if link as usize >= seen.gpu.links.len() {
            return Err(if seen.gpu.links.is_empty() { NOT_SUPPORTED } else { INVALID_ARGUMENT });
        }
        let up = !seen.trouble.links_down.contains(&link);
        unsafe { put(to, up.into()) }
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(device: Handle, link: c_uint, to: *mut c_uint) {
        let kind = match far(&seen(device)?, link)? {
            Far::Gpu(_) => nv::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            Far::Switch(_) => nv::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
        };
        unsafe { put(to, kind) }
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
        device: Handle, link: c_uint, to: *mut nv::nvmlPciInfo_t,
    ) {
        let seen = seen(device)?;
        let info = match far(&seen, link)? {
            Far::Gpu(peer) => {
                let peer = &seen.machine.gpus[peer];
                pci(peer.domain, peer.bus, 0x1db1_10de)
            }
            Far::Switch(bus) => pci(0, bus, 0x22a3_10de),
        };
        unsafe { put(to, info) }
    }

    fn nvmlDeviceGetNvLinkErrorCounter(
        device: Handle, link: c_uint, _counter: c_uint, to: *mut c_ulonglong,
    ) {
        let seen = seen(device)?;
        far(&seen, link)?;
        unsafe { put(to, if link == 0 { seen.trouble.link_errors } else { 0 }) }
    }

    fn nvmlDeviceGetMigMode(device: Handle, current: *mut c_uint, pending: *mut c_uint) {
        let seen = seen(device)?;
        if !seen.gpu.name.contains("A100") && !seen.gpu.name.contains("H100") {
            return Err(NOT_SUPPORTED);
        }
        let on = seen.gpu.mig.is_some().into();
        unsafe {
            put(current, on)?;
            put(pending, on)
        }
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, to: *mut c_uint) {
        let most = if seen(device)?.gpu.mig.is_some() { 7 } else { 0 };
        unsafe { put(to, most) }
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: c_uint, to: *mut Handle) {
        let seen = seen(device)?;
        let instances = seen.gpu.mig.as_ref().map_or(0, Vec::len);
        if index as usize >= instances {
            return Err(NOT_FOUND);
        }
        unsafe { put(to, ((seen.index + 1) * INSTANCES + index as usize + 1) as Handle) }
    }

    fn nvmlDeviceIsMigDeviceHandle(device: Handle, to: *mut c_uint) {
        unsafe { put(to, seen(device)?.instance.is_some().into()) }
    }

    fn nvmlDeviceGetGpuInstanceId(device: Handle, to: *mut c_uint) {
        let instance = seen(device)?.instance.ok_or(NOT_SUPPORTED)?;
        unsafe { put(to, instance as c_uint + 1) }
    }

    fn nvmlDeviceGetComputeInstanceId(device: Handle, to: *mut c_uint) {
        seen(device)?.instance.ok_or(NOT_SUPPORTED)?;
        unsafe { put(to, 0) }
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Handle, to: *mut Handle) {
        let seen = seen(device)?;
        seen.instance.ok_or(INVALID_ARGUMENT)?;
        unsafe { put(to, (seen.index + 1) as Handle) }
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: Handle, to: *mut nv::nvmlGpuFabricInfoV_t) {
        let (clusterUuid, cliqueId) = seen(device)?.gpu.fabric.ok_or(NOT_SUPPORTED)?;
        let version = unsafe { to.as_ref() }.ok_or(INVALID_ARGUMENT)?.version;
        let info = nv::nvmlGpuFabricInfoV_t {
            version,
            clusterUuid,
            status: SUCCESS,
            cliqueId,
            state: nv::NVML_GPU_FABRIC_STATE_COMPLETED as nv::nvmlGpuFabricState_t,
            healthMask: 0,
            healthSummary: 1,
        };
        unsafe { put(to, info) }
    }

    fn nvmlDeviceGetGpuFabricInfo_v4(device: Handle, to: *mut FabricInfoV4) {
        if double().reader.look().one_clique {
            return Err(FUNCTION_NOT_FOUND);
        }
        let (cluster, clique) = seen(device)?.gpu.fabric.ok_or(NOT_SUPPORTED)?;
        let mut cliques = [Clique::default(); 64];
        // Loads and stores, multicast, handles.
        cliques[0] = Clique { kind: 0, id: clique };
        cliques[1] = Clique { kind: 1, id: clique };
        cliques[2] = Clique { kind: 2, id: clique + 100 };
        let info = FabricInfoV4 {
            cluster,
            status: SUCCESS,
            cliques,
            count: 3,
            state: nv::NVML_GPU_FABRIC_STATE_COMPLETED as nv::nvmlGpuFabricState_t,
            health_mask: 0,
            health_summary: 1,
        };
        unsafe { put(to, info) }
    }

    fn nvmlDeviceGetSupportedEventTypes(device: Handle, to: *mut c_ulonglong) {
        seen(device)?;
        unsafe { put(to, u64::from(nv::nvmlEventTypeXidCriticalError)) }
    }

    fn nvmlEventSetCreate(to: *mut nv::nvmlEventSet_t) {
        let mut double = double();
        if double.users == 0 {
            return Err(UNINITIALIZED);
        }
        let past = double.reader.look().event.len();
        double.delivered.push(Some(past));
        unsafe { put(to, double.delivered.len() as nv::nvmlEventSet_t) }
    }

    fn nvmlDeviceRegisterEvents(device: Handle, _types: c_ulonglong, set: nv::nvmlEventSet_t) {
        seen(device)?;
        let known = (set as usize).checked_sub(1).is_some_and(|at| at < double().delivered.len());
        if known { Ok(()) } else { Err(INVALID_ARGUMENT) }
    }

    fn nvmlEventSetFree(set: nv::nvmlEventSet_t) {
        let at = (set as usize).checked_sub(1).ok_or(INVALID_ARGUMENT)?;
        *double().delivered.get_mut(at).ok_or(INVALID_ARGUMENT)? = None;
        Ok(())
    }

    fn nvmlEventSetWait_v2(
        set: nv::nvmlEventSet_t, to: *mut nv::nvmlEventData_t, timeout_ms: c_uint,
    ) {
        let at = (set as usize).checked_sub(1).ok_or(INVALID_ARGUMENT)?;
        let until = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            let mut double = double();
            let next = double.delivered.get(at).copied().flatten().ok_or(INVALID_ARGUMENT)?;
            if let Some(event) = double.reader.look().event.get(next).cloned() {
                double.delivered[at] = Some(next + 1);
                let data = nv::nvmlEventData_t {
                    device: (event.gpu + 1) as Handle,
                    eventType: nv::nvmlEventTypeXidCriticalError.into(),
                    eventData: event.xid,
                    gpuInstanceId: u32::MAX,
                    computeInstanceId: u32::MAX,
                };
                return unsafe { put(to, data) };
            }
            drop(double);
            if Instant::now() >= until {
                return Err(TIMEOUT);
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// What a link that is up leads to.
fn far(seen: &Seen, link: c_uint) -> Result<Far, Return> {
    let far = seen.gpu.links.get(link as usize).copied().ok_or(INVALID_ARGUMENT)?;
    if seen.trouble.links_down.contains(&link) { Err(NOT_SUPPORTED) } else { Ok(far) }
}

fn pci(domain: u32, bus: u32, id: u32) -> nv::nvmlPciInfo_t {
    // SAFETY: numbers and bytes: all zeroes are a value of it.
    let mut info: nv::nvmlPciInfo_t = unsafe { std::mem::zeroed() };
    (info.domain, info.bus, info.pciDeviceId) = (domain, bus, id);
    let text = format!("{domain:08X}:{bus:02X}:00.0");
    for (to, from) in info.busId.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    info
}
