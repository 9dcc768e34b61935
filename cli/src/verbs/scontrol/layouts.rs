//! The records of `scontrol show`, to the letter.

use muster_proto::v1;

use super::{Manner, job, node, partition};
use crate::query::surroundings::Surroundings;
use crate::query::times::Style;

/// 2026-11-23T16:02:29 UTC.
const NOW: i64 = 1_795_449_749_000;

fn here() -> Surroundings {
    Surroundings {
        now: NOW,
        zone: jiff::tz::TimeZone::UTC,
        style: Style::Standard,
        group_of: |gid| (gid == 100).then(|| "users".to_owned()),
        ..Surroundings::here()
    }
}

fn h100() -> Option<v1::GresKind> {
    Some(v1::GresKind { name: "gpu".to_owned(), of: "h100".to_owned() })
}

fn training() -> v1::Job {
    let minutes = |m| Some(v1::TimeLimit { limit: Some(v1::time_limit::Limit::Minutes(m)) });
    v1::Job {
        id: 12,
        state: v1::JobState::Running as i32,
        priority: 4000,
        submitted_at: NOW - 60_000,
        eligible_at: NOW - 60_000,
        started_at: NOW - 10_000,
        ended_at: NOW + 3_590_000,
        partition: "main".to_owned(),
        time_limit: minutes(60),
        nodes: "n[1-2]".to_owned(),
        batch_host: "n1".to_owned(),
        node_count: 2,
        cpu_count: 16,
        task_count: 2,
        memory_mib: 65_536,
        gres: vec![v1::GresCount { kind: h100(), count: 4 }],
        slices: vec![v1::NodeSlice {
            node: "n1".to_owned(),
            cpus: "0-7".to_owned(),
            memory_mib: 32_768,
            gres: vec![v1::GresMask { kind: h100(), mask: 3, count: 2 }],
            tasks: 1,
        }],
        stdout: "/home/ann/slurm-12.out".to_owned(),
        stderr: "/home/ann/slurm-12.out".to_owned(),
        stdin: "/dev/null".to_owned(),
        spec: Some(v1::JobSpec {
            name: "train".to_owned(),
            user: Some(v1::User { uid: 1000, gid: 100, name: "ann".to_owned() }),
            request: Some(v1::Request {
                min_nodes: 2,
                max_nodes: Some(2),
                cpus_per_task: 8,
                memory: Some(v1::Memory { request: Some(v1::memory::Request::PerNodeMib(32_768)) }),
                gres: vec![v1::GresRequest { kind: h100(), count: 2, scope: 0 }],
                ..v1::Request::default()
            }),
            launch: Some(v1::LaunchSpec {
                workdir: "/home/ann".to_owned(),
                command: "/home/ann/train.sh".to_owned(),
                args: vec!["--lr".to_owned(), "3".to_owned()],
                submit_line: "sbatch train.sh --lr 3".to_owned(),
                submit_host: "login".to_owned(),
                ..v1::LaunchSpec::default()
            }),
            ..v1::JobSpec::default()
        }),
        ..v1::Job::default()
    }
}

#[test]
fn a_running_job_is_shown_line_by_line() {
    let expected = "\
JobId=12 JobName=train
   UserId=ann(1000) GroupId=users(100) MCS_label=N/A
   Priority=4000 Nice=0 Account=(null) QOS=(null)
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   DerivedExitCode=0:0
   RunTime=00:00:10 TimeLimit=01:00:00 TimeMin=N/A
   SubmitTime=2026-11-23T16:01:29 EligibleTime=2026-11-23T16:01:29
   AccrueTime=2026-11-23T16:01:29
   StartTime=2026-11-23T16:02:19 EndTime=2026-11-23T17:02:19 Deadline=N/A
   SuspendTime=None SecsPreSuspend=0 LastSchedEval=Unknown Scheduler=Main
   Partition=main AllocNode:Sid=login:0
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=n[1-2]
   BatchHost=n1
   NumNodes=2 NumCPUs=16 NumTasks=2 CPUs/Task=8 ReqB:S:C:T=0:0:*:*
   ReqTRES=cpu=16,mem=64G,node=2,billing=16,gres/gpu=4,gres/gpu:h100=4
   AllocTRES=cpu=16,mem=64G,node=2,billing=16,gres/gpu=4,gres/gpu:h100=4
   Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*
   JOB_GRES=gpu:h100:4
     Nodes=n1 CPU_IDs=0-7 Mem=32768 GRES=gpu:h100:2(IDX:0-1)
   MinCPUsNode=8 MinMemoryNode=32G MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00
   OverSubscribe=OK Exclusive=NO Contiguous=0 Licenses=(null) LicensesAlloc=(null) Network=(null)
   Command=/home/ann/train.sh --lr 3
   SubmitLine=sbatch train.sh --lr 3
   WorkDir=/home/ann
   StdErr=/home/ann/slurm-12.out
   StdIn=/dev/null
   StdOut=/home/ann/slurm-12.out
   TresPerNode=gres/gpu:h100:2

";
    let manner = Manner { details: true, ..Manner::default() };
    assert_eq!(job::show(&training(), manner, &here()), expected);
}

#[test]
fn on_one_line_every_word_has_a_value() {
    let manner = Manner { oneliner: true, details: true, ..Manner::default() };
    let mut waiting = training();
    waiting.state = v1::JobState::Pending as i32;
    waiting.reason = "ReqNodeNotAvail".to_owned();
    waiting.reason_detail = "UnavailableNodes:n1, n2".to_owned();
    for job in [training(), waiting] {
        let line = job::show(&job, manner, &here());
        assert_eq!(line.lines().count(), 1);
        for word in line.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("{word}"));
            assert!(!name.is_empty() && !value.is_empty(), "{word}");
        }
    }
}

#[test]
fn an_arrays_rest_names_its_tasks() {
    let rest = v1::Job {
        array_id: 12,
        array_tasks: "0-15".to_owned(),
        array_throttle: 4,
        state: v1::JobState::Pending as i32,
        ..training()
    };
    let text = job::show(&rest, Manner::default(), &here());
    let first = "JobId=12 ArrayJobId=12 ArrayTaskId=0-15 ArrayTaskThrottle=4 JobName=train\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("\n   AllocTRES=(null)\n"));
}

#[test]
fn a_node_is_shown_line_by_line() {
    let drained = v1::Node {
        name: "n1".to_owned(),
        drain: true,
        reason: "bad disk".to_owned(),
        reason_by: "root".to_owned(),
        reason_at: NOW,
        cpus: 64,
        cpus_allocated: 16,
        base: v1::NodeBase::Mixed as i32,
        memory_mib: 262_144,
        memory_allocated_mib: 65_536,
        memory_free_mib: 200_000,
        load: 1.5,
        sockets: 2,
        cores_per_socket: 32,
        threads_per_core: 1,
        features: vec!["ib".to_owned(), "h100".to_owned()],
        gres: vec![v1::GresCount { kind: h100(), count: 8 }],
        weight: 1,
        partitions: vec!["main".to_owned()],
        os: "Linux 6.1".to_owned(),
        arch: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        booted_at: NOW - 3_600_000,
        agent_started_at: NOW - 3_000_000,
        ..v1::Node::default()
    };
    let expected = "\
NodeName=n1 Arch=x86_64 CoresPerSocket=32
   CPUAlloc=16 CPUEfctv=64 CPUTot=64 CPULoad=1.50
   AvailableFeatures=ib,h100
   ActiveFeatures=ib,h100
   Gres=gpu:h100:8
   NodeAddr=n1 NodeHostName=n1 Version=0.1.0
   OS=Linux 6.1
   RealMemory=262144 AllocMem=65536 FreeMem=200000 Sockets=2 Boards=1
   State=MIXED+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   Partitions=main
   BootTime=2026-11-23T15:02:29 SlurmdStartTime=2026-11-23T15:12:29
   LastBusyTime=Unknown ResumeAfterTime=None
   CfgTRES=cpu=64,mem=256G,billing=64,gres/gpu=8,gres/gpu:h100=8
   AllocTRES=cpu=16,mem=64G
   CurrentWatts=0 AveWatts=0
   Reason=bad disk [root@2026-11-23T16:02:29]

";
    assert_eq!(node::show(&drained, Manner::default(), &here()), expected);
}

#[test]
fn a_partition_is_shown_line_by_line() {
    let main = v1::Partition {
        name: "main".to_owned(),
        nodes: "n[1-4]".to_owned(),
        default: true,
        state: "UP".to_owned(),
        max_time: Some(v1::TimeLimit { limit: Some(v1::time_limit::Limit::Minutes(1440)) }),
        priority_tier: 1,
        priority_factor: 1,
        total_cpus: 256,
        total_nodes: 4,
        total_memory_mib: 1 << 20,
        ..v1::Partition::default()
    };
    let expected = "\
PartitionName=main
   AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL
   AllocNodes=ALL Default=YES QoS=N/A
   DefaultTime=NONE DisableRootJobs=NO Exclusive=NO GraceTime=0 Hidden=NO
   MaxNodes=UNLIMITED MaxTime=1-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED MaxCPUsPerSocket=UNLIMITED
   Nodes=n[1-4]
   PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO
   OverTimeLimit=NONE PreemptMode=OFF
   State=UP TotalCPUs=256 TotalNodes=4 SelectTypeParameters=NONE
   JobDefaults=(null)
   DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED
   TRES=cpu=256,mem=1T,node=4,billing=256
   TRESBillingWeights=(null)
   ResumeTimeout=GLOBAL SuspendTimeout=GLOBAL SuspendTime=GLOBAL PowerDownOnIdle=NO

";
    assert_eq!(partition::show(&main, Manner::default()), expected);
    let line = partition::show(&main, Manner { oneliner: true, ..Manner::default() });
    assert!(line.split_whitespace().all(|w| w.split_once('=').is_some_and(|(_, v)| !v.is_empty())));
}
