//! Values of every shape from one seed, for property tests and the golden file.

use std::sync::Arc;

use muster_core::command::{JobChange, NodeChange, NodeVerb, PartitionChange, TimeChange};
use muster_core::config::{ClusterConfig, Limits, PriorityWeights};
use muster_core::event::{AfterCompleting, ClearedExit, Event};
use muster_core::state::{Asked, Habit, Habits, Past};
use muster_model::node::{GpuMark, Mark};
use muster_model::*;

/// How many kinds of events there are.
pub(in crate::engine) const KINDS: u32 = 25;

/// A stream of numbers (splitmix64).
pub(in crate::engine) struct Gen(pub u64);

impl Gen {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u32) -> u32 {
        (self.next() % u64::from(n)) as u32
    }

    fn yes(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Small, large and extreme ones.
    fn num(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => u32::MAX,
            2 => self.below(300),
            _ => self.next() as u32,
        }
    }

    fn long(&mut self) -> u64 {
        if self.yes() { self.next() } else { self.num().into() }
    }

    fn text(&mut self) -> Box<str> {
        const TEXTS: [&str; 6] = ["", "a", "zwölf Boxkämpfer", "a b\n\"c\"", "%j_%a.out", "x=y,z"];
        TEXTS[self.below(6) as usize].into()
    }

    fn opt<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.yes() { Some(make(self)) } else { None }
    }

    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    fn time(&mut self) -> Timestamp {
        Timestamp(if self.yes() { self.next() as i64 } else { self.num().into() })
    }

    fn limit(&mut self) -> TimeLimit {
        if self.yes() { TimeLimit::Limited(Seconds(self.num())) } else { TimeLimit::Unlimited }
    }

    fn tasks(&mut self) -> IndexSet {
        IndexSet::from_ranges(self.some(|g| {
            let from = g.below(1000);
            (from, from + g.below(50))
        }))
    }

    fn cpus(&mut self) -> CpuSet {
        CpuSet::from_words(self.some(Gen::next))
    }

    fn kind(&mut self) -> GresKind {
        GresKind { name: self.text().into(), of: self.opt(|g| g.text().into()) }
    }

    fn gres(&mut self) -> GresRequest {
        use GresScope::{Job, Node, Socket, Task};
        let scope = [Job, Node, Task, Socket][self.below(4) as usize];
        GresRequest { kind: self.kind(), count: self.long(), scope }
    }

    fn capacity(&mut self) -> Capacity {
        Capacity {
            cpus: self.num(),
            memory_mib: self.long(),
            gres: self.some(|g| (g.kind(), g.long())).into_iter().collect(),
        }
    }

    pub(in crate::engine) fn placement(&mut self) -> Placement {
        let mask = |g: &mut Gen| GresMask { kind: g.kind(), mask: g.long(), count: g.long() };
        let slice = |g: &mut Gen| Slice {
            node: NodeId(g.num()),
            cpus: g.cpus(),
            memory_mib: g.long(),
            gres: g.some(mask),
            tasks: g.num(),
        };
        Placement { slices: self.some(slice) }
    }

    fn exit(&mut self) -> ExitStatus {
        ExitStatus { code: self.num() as u8, signal: self.num() as u8 }
    }

    pub(in crate::engine) fn cleared(&mut self) -> ClearedExit {
        ClearedExit {
            status: self.exit(),
            started_at: self.time(),
            ended_at: self.time(),
            usage: Usage {
                user_cpu_ms: self.long(),
                system_cpu_ms: self.long(),
                max_rss_kib: self.long(),
                gpu: self.opt(|g| GpuUsage {
                    busy_ms: g.long(),
                    seen_ms: g.long(),
                    memory_mib: g.long(),
                    energy_mj: g.long(),
                }),
            },
        }
    }

    pub(in crate::engine) fn outcome(&mut self) -> Outcome {
        match self.below(9) {
            0 => Outcome::Completed,
            1 => Outcome::Failed(self.exit()),
            2 => Outcome::Cancelled { by: Uid(self.num()) },
            3 => Outcome::Timeout,
            4 => Outcome::OutOfMemory,
            5 => Outcome::NodeFail { node: self.text() },
            6 => Outcome::Deadline,
            7 => Outcome::Preempted,
            _ => Outcome::BootFail,
        }
    }

    fn hold(&mut self) -> Hold {
        [Hold::User, Hold::Admin, Hold::MaxRequeue, Hold::LaunchFailed][self.below(4) as usize]
    }

    fn then(&mut self) -> AfterCompleting {
        if self.yes() {
            return AfterCompleting::End;
        }
        AfterCompleting::Requeue { hold: self.opt(Gen::hold), eligible_at: self.time() }
    }

    fn mark(&mut self) -> Mark {
        Mark { reason: self.text(), by: self.opt(|g| Uid(g.num())), at: self.time() }
    }

    fn memory(&mut self) -> MemoryRequest {
        match self.below(4) {
            0 => MemoryRequest::Default,
            1 => MemoryRequest::PerNode(self.long()),
            2 => MemoryRequest::PerCpu(self.long()),
            _ => MemoryRequest::PerGpu(self.long()),
        }
    }

    fn constraint(&mut self, depth: u32) -> Constraint {
        let parts = |g: &mut Gen| g.some(|g| g.constraint(depth - 1));
        match if depth == 0 { 0 } else { self.below(6) } {
            0 => Constraint::Feature(self.text()),
            5 => Constraint::GpuMemory(self.num().into()),
            1 => Constraint::And(parts(self)),
            2 => Constraint::Or(parts(self)),
            3 => Constraint::SameOf(parts(self)),
            _ => Constraint::Count(Box::new(self.constraint(depth - 1)), self.num()),
        }
    }

    fn request(&mut self) -> Request {
        Request {
            nodes: NodeCount { min: self.num(), max: self.opt(Gen::num) },
            tasks: self.num(),
            tasks_given: self.yes(),
            tasks_per_node: self.opt(Gen::num),
            cpus_per_task: self.num(),
            min_cpus_per_node: self.num(),
            memory: self.memory(),
            gres: self.some(Gen::gres),
            cpus_per_gpu: self.opt(Gen::num),
            constraint: self.opt(|g| g.constraint(4)),
            required_nodes: self.some(Gen::text),
            excluded_nodes: self.some(Gen::text),
            exclusive: self.yes(),
            contiguous: self.yes(),
            threads_per_core: self.opt(Gen::num),
            sockets_per_node: self.opt(Gen::num),
            topology: TopologyWish {
                switches: self.opt(|g| SwitchWish { count: g.num(), max_wait_seconds: g.num() }),
                segment: self.opt(Gen::num),
                alone: self.yes(),
                nvlink: self.yes(),
                binding: match self.below(3) {
                    0 => CpuBinding::Preferred,
                    1 => CpuBinding::Enforced,
                    _ => CpuBinding::Disabled,
                },
            },
        }
    }

    fn dependency(&mut self) -> Dependency {
        let term = |g: &mut Gen| DependencyTerm {
            kind: match g.below(5) {
                0 => DependencyKind::After { minutes: g.num() },
                1 => DependencyKind::AfterAny,
                2 => DependencyKind::AfterOk,
                3 => DependencyKind::AfterNotOk,
                _ => DependencyKind::AfterCorr,
            },
            job: JobId(g.num()),
            task: g.opt(Gen::num),
        };
        Dependency { terms: self.some(term), any: self.yes(), singleton: self.yes() }
    }

    fn licenses(&mut self) -> Vec<(Box<str>, u32)> {
        self.some(|g| (g.text(), g.num()))
    }

    fn launch(&mut self) -> LaunchSpec {
        LaunchSpec {
            workdir: self.text(),
            stdout: self.opt(Gen::text),
            stderr: self.opt(Gen::text),
            stdin: self.opt(Gen::text),
            open_mode: if self.yes() { OpenMode::Append } else { OpenMode::Truncate },
            umask: self.num(),
            rlimits: self.some(|g| (g.text(), g.long())).into(),
            command: self.text(),
            submit_dir: self.text(),
            submit_host: self.text(),
            signal: self.opt(|g| SignalRequest {
                signal: g.num() as i32,
                before_seconds: g.num(),
                batch_only: g.yes(),
            }),
            no_kill: self.yes(),
            overcommit: self.yes(),
            mail_type: self.text(),
            mail_user: self.text(),
            admin_comment: self.text(),
            extras: self.some(|g| (g.text(), g.text())),
        }
    }

    pub(in crate::engine) fn spec(&mut self) -> JobSpec {
        JobSpec {
            name: self.text(),
            user: User { uid: Uid(self.num()), gid: self.num(), name: self.text() },
            account: self.text(),
            qos: self.text(),
            partitions: self.some(Gen::text),
            request: Arc::new(self.request()),
            time_limit: self.opt(Gen::limit),
            time_min: self.opt(Gen::limit),
            begin: self.opt(Gen::time),
            deadline: self.opt(Gen::time),
            dependency: self.dependency(),
            kill_on_invalid_dependency: self.yes(),
            array: self.opt(|g| ArraySpec { indices: g.tasks(), throttle: g.opt(Gen::num) }),
            het: self.opt(|g| HetPart { index: g.num() as u16, count: g.num() as u16 }),
            held: self.yes(),
            nice: self.num() as i32,
            priority: self.opt(Gen::num),
            requeue: self.opt(Gen::yes),
            licenses: self.licenses(),
            reservation: self.opt(Gen::text),
            comment: self.text(),
            wckey: self.text(),
            args: self.some(Gen::text).into(),
            submit_line: self.text(),
            launch: Arc::new(self.launch()),
            script_bytes: self.num(),
            env_bytes: self.num(),
        }
    }

    fn state(&mut self) -> PartitionState {
        use PartitionState::{Down, Drain, Inactive, Up};
        [Up, Down, Drain, Inactive][self.below(4) as usize]
    }

    fn partition(&mut self) -> Partition {
        Partition {
            name: self.text(),
            nodes: self.some(Gen::text),
            default: self.yes(),
            state: self.state(),
            max_time: self.limit(),
            default_time: self.opt(Gen::limit),
            min_nodes: self.num(),
            max_nodes: self.opt(Gen::num),
            priority_tier: self.num() as u16,
            priority_factor: self.num() as u16,
            default_memory_per_node_mib: self.opt(Gen::long),
            default_memory_per_cpu_mib: self.opt(Gen::long),
            max_memory_per_node_mib: self.opt(Gen::long),
            allow_users: self.some(Gen::text),
            allow_groups: self.some(Gen::text),
            exclusive: self.yes(),
        }
    }

    fn config(&mut self) -> ClusterConfig {
        let node = |g: &mut Gen| NodeConfig {
            name: g.text(),
            capacity: g.capacity(),
            sockets: g.num(),
            cores_per_socket: g.num(),
            threads_per_core: g.num(),
            features: g.some(Gen::text),
            auto_gpus: g.yes(),
            weight: g.num(),
        };
        ClusterConfig {
            cluster: self.text(),
            nodes: self.some(node),
            partitions: self.some(Gen::partition),
            licenses: self.licenses(),
            limits: Limits {
                max_jobs: self.num(),
                max_array_size: self.num(),
                min_job_age_seconds: self.num(),
                requeue_by_default: self.yes(),
                max_requeues: self.num(),
                kill_on_invalid_dependency: self.yes(),
                first_job_id: self.num(),
                root_jobs: self.yes(),
                enforce_partition_limits: self.yes(),
                requeue_delay_seconds: self.num(),
            },
            priority: PriorityWeights {
                age: self.num(),
                max_age_seconds: self.num(),
                size: self.num(),
                partition: self.num(),
            },
            topology: self.topology(),
        }
    }

    fn topology(&mut self) -> TopologyConfig {
        let switch = |g: &mut Gen| SwitchConfig {
            name: g.text(),
            nodes: g.some(Gen::text),
            switches: g.some(Gen::text),
            rails: g.num(),
        };
        let block = |g: &mut Gen| BlockConfig { name: g.text(), nodes: g.some(Gen::text) };
        TopologyConfig { switches: self.some(switch), blocks: self.some(block) }
    }

    fn gpu(&mut self) -> Gpu {
        Gpu {
            uuid: self.text(),
            of: self.text(),
            memory_mib: self.num().into(),
            minor: self.opt(Gen::num),
            pci: self.text(),
            numa: self.opt(Gen::num),
            cpus: self.cpus(),
            mig: self.opt(|g| MigInstance {
                parent: g.text(),
                gpu_instance: g.num(),
                compute_instance: g.num(),
                cap_minors: g.some(Gen::num),
            }),
            fabric: self.opt(|g| Fabric { cluster: g.text(), clique: g.num() }),
        }
    }

    fn inventory(&mut self) -> Inventory {
        Inventory {
            capacity: self.capacity(),
            sockets: self.num(),
            cores_per_socket: self.num(),
            threads_per_core: self.num(),
            numa: self.some(Gen::cpus),
            arch: self.text(),
            os: self.text(),
            version: self.text(),
            hostname: self.text(),
            address: self.text(),
            boot_id: self.text(),
            booted_at: self.time(),
            unenforced: self.some(Gen::text),
            gpus: self.some(Gen::gpu),
            links: self.opt(|_| Arc::new(GpuLinks::full(3))),
        }
    }

    fn job_change(&mut self) -> JobChange {
        JobChange {
            name: self.opt(Gen::text),
            comment: self.opt(Gen::text),
            time_limit: self.opt(|g| match g.below(3) {
                0 => TimeChange::To(g.limit()),
                1 => TimeChange::ByMinutes(g.num() as i32),
                _ => TimeChange::EndAt(g.time()),
            }),
            partitions: self.opt(|g| g.some(Gen::text)),
            account: self.opt(Gen::text),
            qos: self.opt(Gen::text),
            nice: self.opt(|g| g.num() as i32),
            priority: self.opt(Gen::num),
            dependency: self.opt(Gen::dependency),
            begin: self.opt(Gen::time),
            deadline: self.opt(Gen::time),
            requeue: self.opt(Gen::yes),
            min_nodes: self.opt(Gen::num),
            max_nodes: self.opt(Gen::num),
            tasks: self.opt(Gen::num),
            cpus_per_task: self.opt(Gen::num),
            memory: self.opt(Gen::memory),
            constraint: self.opt(|g| g.opt(|g| g.constraint(3))),
            gres: self.opt(|g| g.some(Gen::gres)),
            required_nodes: self.opt(|g| g.some(Gen::text)),
            excluded_nodes: self.opt(|g| g.some(Gen::text)),
            array_throttle: self.opt(Gen::num),
            stdout: self.opt(Gen::text),
            stderr: self.opt(Gen::text),
            workdir: self.opt(Gen::text),
            mail_type: self.opt(Gen::text),
            mail_user: self.opt(Gen::text),
            wckey: self.opt(Gen::text),
            licenses: self.opt(Gen::licenses),
            reservation: self.opt(Gen::text),
            admin_comment: self.opt(Gen::text),
            contiguous: self.opt(Gen::yes),
            switches: self.opt(|g| SwitchWish { count: g.num(), max_wait_seconds: g.num() }),
        }
    }

    fn node_change(&mut self) -> NodeChange {
        let verb = |g: &mut Gen| match g.below(4) {
            0 => NodeVerb::Drain { reason: g.text() },
            1 => NodeVerb::Down { reason: g.text() },
            2 => NodeVerb::Resume,
            _ => NodeVerb::Undrain,
        };
        NodeChange {
            verb: self.opt(verb),
            weight: self.opt(Gen::num),
            features: self.opt(|g| g.some(Gen::text)),
            comment: self.opt(Gen::text),
        }
    }

    fn partition_change(&mut self) -> PartitionChange {
        PartitionChange {
            state: self.opt(Gen::state),
            max_time: self.opt(Gen::limit),
            default_time: self.opt(Gen::limit),
            max_nodes: self.opt(Gen::num),
            priority_tier: self.opt(|g| g.num() as u16),
        }
    }

    pub(in crate::engine) fn reservation(&mut self) -> Reservation {
        let access = |g: &mut Gen| Access { names: g.some(Gen::text), deny: g.yes() };
        Reservation {
            name: self.text(),
            nodes: self.some(|g| NodeId(g.num())),
            partition: self.opt(Gen::text),
            start: self.time(),
            end: self.time(),
            users: access(self),
            accounts: access(self),
            flags: ReservationFlags(self.num()),
            features: self.opt(|g| g.constraint(3)),
            licenses: self.licenses(),
            comment: self.text(),
            created_by: Uid(self.num()),
            created_at: self.time(),
        }
    }

    pub(in crate::engine) fn habits(&mut self) -> Habits {
        let past = |g: &mut Gen| Past {
            run_seconds: g.num(),
            asked: Asked { cpus: g.num(), gpus: g.num() },
            limit: g.num(),
        };
        let habit = |g: &mut Gen| Habit { last: g.time(), past: g.some(past).into() };
        let users = self.some(|g| (Uid(g.num()), habit(g)));
        Habits { users: users.into_iter().collect(), waits: self.some(Gen::num) }
    }

    /// An event of the kind with this number, below [`KINDS`].
    pub(in crate::engine) fn event(&mut self, kind: u32) -> Event {
        let (job, attempt, node) = (JobId(self.num()), Attempt(self.num()), NodeId(self.num()));
        let (at, tasks) = (self.time(), self.opt(Gen::tasks));
        match kind {
            0 => Event::Configured { config: Arc::new(self.config()), at },
            1 => {
                let request_id = std::array::from_fn(|_| self.num() as u8);
                let (spec, expected) = (Arc::new(self.spec()), self.num());
                Event::Submitted { job, request_id, spec, expected, at }
            }
            2 => {
                let (partition, end_at) = (self.text(), self.opt(Gen::time));
                let placement = self.placement();
                let time_limit = self.opt(|g| Seconds(g.num()));
                Event::Started { job, attempt, partition, placement, end_at, time_limit, at }
            }
            3 => Event::SliceReady { job, attempt, node },
            4 => Event::Running { job, attempt, started_at: at, end_at: self.opt(Gen::time) },
            5 => {
                let (outcome, then) = (self.outcome(), self.then());
                Event::Completing { job, attempt, outcome, then, at }
            }
            6 => Event::SliceCleared { job, attempt, node, exit: self.opt(Gen::cleared) },
            7 => Event::Ended { job, attempt, outcome: self.outcome(), at },
            8 => {
                let (outcome, hold) = (self.outcome(), self.opt(Gen::hold));
                Event::Requeued { job, attempt, outcome, hold, eligible_at: self.time(), at }
            }
            9 => Event::Held { job, tasks, hold: self.hold() },
            10 => Event::Released { job, tasks, at },
            11 => Event::TasksEnded { job, tasks: self.tasks(), outcome: self.outcome(), at },
            12 => Event::Updated { job, tasks, change: Box::new(self.job_change()), at },
            13 => Event::Suspended { job, attempt, at },
            14 => Event::Resumed { job, attempt, end_at: self.opt(Gen::time), at },
            15 => Event::Registered { node, inventory: Arc::new(self.inventory()), at },
            16 => Event::NodeDrain { node, mark: self.opt(Gen::mark) },
            17 => Event::NodeDown { node, mark: self.opt(Gen::mark) },
            18 => Event::NodeChanged { node, change: self.node_change() },
            19 => Event::PartitionChanged { name: self.text(), change: self.partition_change() },
            20 => Event::Purged { jobs: self.some(|g| JobId(g.num())) },
            21 => Event::ReservationSet { reservation: Arc::new(self.reservation()), at },
            22 => Event::ReservationGone { name: self.text(), at },
            23 => Event::GpuDrain {
                node,
                gpu: self.num() as u8,
                mark: self.opt(|g| GpuMark { mark: g.mark(), lifts: g.yes() }),
                at,
            },
            24 => Event::GpusFound { node, gpus: self.capacity().gres.into_iter().collect() },
            _ => panic!("there are {KINDS} kinds of events"),
        }
    }
}
