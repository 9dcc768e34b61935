//! Faults of the double, and what they come to after one look, two, three.

use muster_config::NvmlLibrary;
use muster_model::NodeConfig;
use nvidia_ml::file::{Happening, Process, Trouble};
use nvidia_ml::kit::Double;

use super::*;
use crate::inventory::Roots;
use crate::inventory::gpu::Found;

struct Bench {
    double: Double,
    gpus: Gpus,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(layout: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let double = Double::new(folder.path(), layout);
        let driver = Driver::load(&NvmlLibrary::Path(double.path()));
        let node = NodeConfig {
            name: "n1".into(),
            capacity: Default::default(),
            sockets: 1,
            cores_per_socket: 1,
            threads_per_core: 1,
            features: Vec::new(),
            auto_gpus: true,
            weight: 1,
        };
        let units = Found::look(&driver, &Roots::below(folder.path())).assigned(&node).0;
        let gpus = Gpus::new(&driver, units);
        gpus.look();
        Bench { double, gpus, _folder: folder }
    }

    fn trouble(&mut self, gpu: usize, change: impl FnOnce(&mut Trouble)) {
        self.double.change(|scene| change(scene.trouble_mut(gpu)));
    }

    /// What is told after so many looks: `unit reason`, with `!` where it stays.
    fn told(&self, looks: u32) -> Vec<String> {
        let mut report = GpuReport::default();
        (0..looks).for_each(|_| report = self.gpus.look());
        shown(&report)
    }

    fn hand_over(&self, key: Key) -> Option<GpuReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(self.gpus.hand_over(key))
    }
}

fn shown(report: &GpuReport) -> Vec<String> {
    let line = |f: &GpuFault| format!("{}{} {}", if f.stays { "!" } else { "" }, f.gpu, f.reason);
    report.faults.iter().map(line).collect()
}

/// A fault of GPU 3 that counts after exactly so many looks, and whether it goes with its cause.
#[track_caller]
fn check(looks: u32, told: &str, goes: bool, change: impl FnOnce(&mut Trouble)) {
    let mut bench = Bench::new("dgx-h100");
    bench.trouble(3, change);
    assert_eq!(bench.told(looks - 1), [] as [&str; 0], "too early");
    assert_eq!(bench.told(1), [told]);
    bench.trouble(3, |trouble| *trouble = Trouble::default());
    let after = bench.told(6);
    assert_eq!(after.is_empty(), goes, "{after:?}");
}

#[test]
fn each_fault_counts_after_its_looks_and_ends_as_documented() {
    check(2, "!3 it fell off the bus (GPU is lost)", false, |t| t.lost = true);
    check(1, "!3 2 uncorrected memory (ECC) errors", false, |t| t.ecc_uncorrected = 2);
    check(2, "!3 a broken memory row could not be remapped", false, |t| t.remap_failed = true);
    check(2, "3 a broken memory row waits to be remapped: reset the GPU", true, |t| {
        t.remap_pending = true;
    });
    check(3, "3 NVLink 2,5 is down", true, |t| t.links_down = vec![2, 5]);
    check(6, "3 it is slowed down by heat (35 C)", true, |t| t.overheated = true);
    check(3, "3 no job holds it, and there is process 77 on it (900 MiB)", true, |t| {
        t.processes.push(Process { pid: 77, memory_mib: 900 });
    });
}

#[test]
fn a_gpu_that_does_not_answer_is_given_up_after_three_looks() {
    let mut bench = Bench::new("l40s-x4");
    bench.trouble(1, |t| t.mute = true);
    assert!(bench.told(2).is_empty());
    let told = bench.told(1);
    assert!(told.len() == 1 && told[0].starts_with("1 it does not answer"), "{told:?}");
}

#[test]
fn a_slow_answer_is_no_fault() {
    let mut bench = Bench::new("l40s-x4");
    bench.double.change(|scene| scene.slow_ms = 2);
    assert!(bench.told(4).is_empty());
}

#[test]
fn what_the_driver_tells_by_itself_counts_at_once_if_it_is_fatal() {
    let bench = Bench::new("dgx-h100");
    assert_eq!(bench.gpus.xid(2, 13), None);
    let report = bench.gpus.xid(2, 79).expect("fatal");
    assert_eq!(shown(&report), ["!2 Xid 79 (GPU has fallen off the bus)"]);
}

#[test]
fn events_of_the_driver_reach_the_jobs() {
    let mut bench = Bench::new("dgx-h100");
    let (tell, mut told) = mpsc::channel(100);
    bench.gpus.watch(Duration::from_secs(3600), tell);
    let mut next = || match told.blocking_recv() {
        Some(Input::Gpus(report)) => shown(&report),
        other => panic!("{other:?}"),
    };
    assert!(next().is_empty(), "the first look");
    // An event set tells of what happens after it was made.
    let until = Instant::now() + Duration::from_secs(30);
    while nvml_has_no_listener(&bench) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    bench.double.change(|scene| scene.event.push(Happening { gpu: 5, xid: 13 }));
    bench.double.change(|scene| scene.event.push(Happening { gpu: 5, xid: 48 }));
    assert_eq!(next(), ["!5 Xid 48 (double bit ECC error)"]);
}

fn nvml_has_no_listener(bench: &Bench) -> bool {
    !bench.gpus.state().listening
}

#[test]
fn an_instance_suffers_what_its_gpu_does() {
    let mut bench = Bench::new("mig-a100");
    bench.trouble(0, |t| t.lost = true);
    let told = bench.told(2);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|line| !line.starts_with("!0 ")), "the whole one is well: {told:?}");
}

#[test]
fn a_gpu_is_handed_over_when_it_is_clean_and_not_before() {
    let mut bench = Bench::new("dgx-h100");
    let key = Key { job: 9, attempt: 1 };
    bench.gpus.hold(key, 0b11);
    bench.trouble(1, |t| t.processes.push(Process { pid: 5, memory_mib: 70_000 }));
    assert!(bench.told(4).is_empty(), "its own job uses it");
    let report = bench.hand_over(key).expect("not clean");
    assert_eq!(shown(&report), ["1 job 9 left process 5 on it (70000 MiB)"]);
    assert_eq!(bench.told(3).len(), 1, "for as long as it lasts");
    bench.trouble(1, |t| t.processes.clear());
    assert!(bench.told(2).is_empty());
    let key = Key { job: 10, attempt: 1 };
    bench.gpus.hold(key, 0b11);
    assert_eq!(bench.hand_over(key), None);
}

#[test]
fn a_job_is_charged_what_its_gpus_did_while_it_held_them() {
    let mut bench = Bench::new("dgx-h100");
    let key = Key { job: 9, attempt: 1 };
    bench.trouble(0, |t| t.energy_mj = Some(1000));
    bench.trouble(1, |t| t.energy_mj = Some(500));
    bench.told(1);
    bench.gpus.hold(key, 0b11);
    bench.told(1);
    std::thread::sleep(Duration::from_millis(20));
    bench.trouble(0, |t| (t.energy_mj, t.utilization, t.memory_used_mib) = (Some(5000), 100, 700));
    bench.trouble(1, |t| (t.energy_mj, t.memory_used_mib) = (Some(2500), 300));
    bench.told(1);
    let usage = bench.gpus.usage(key).expect("measured");
    assert_eq!((usage.energy_mj, usage.memory_mib), (6000, 1000));
    assert!(usage.seen_ms >= 40 && usage.busy_ms * 2 <= usage.seen_ms + 1, "{usage:?}");
    assert!(usage.busy_ms > 0);
    bench.gpus.forget(key);
    assert_eq!(bench.gpus.usage(key), None);
}

#[test]
fn a_job_that_ends_before_the_next_look_is_charged_as_well() {
    let mut bench = Bench::new("dgx-h100");
    let (tell, mut told) = mpsc::channel(100);
    bench.trouble(0, |t| t.energy_mj = Some(1000));
    bench.gpus.watch(Duration::from_secs(3600), tell);
    assert!(matches!(told.blocking_recv(), Some(Input::Gpus(_))), "the only look");
    let key = Key { job: 9, attempt: 1 };
    bench.gpus.hold(key, 0b1);
    let until = Instant::now() + Duration::from_secs(30);
    while bench.gpus.state().energy.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    bench.trouble(0, |t| (t.energy_mj, t.utilization) = (Some(4000), 100));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(bench.hand_over(key), None);
    let usage = bench.gpus.usage(key).expect("measured");
    assert_eq!((usage.energy_mj, usage.busy_ms), (3000, usage.seen_ms));
    assert!(usage.seen_ms >= 10, "{usage:?}");
}
