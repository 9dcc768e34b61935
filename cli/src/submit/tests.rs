//! Command lines, environments and scripts against jobs and refusals, as tables.

use super::*;
use muster_proto::v1::GresScope;

const SCRIPT: &str = "#!/bin/sh\ntrue\n";

fn around(variables: &[(&str, &str)]) -> Surroundings {
    let pair = |(n, v): &(&str, &str)| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
    Surroundings {
        environment: variables.iter().map(pair).collect(),
        cwd: PathBuf::from("/tmp"),
        hostname: "login".to_owned(),
        umask: 0o022,
        rlimits: vec![("nofile", 1024), ("core", 0)],
        // 2026-11-23T16:02:29 UTC
        now_ms: 1_795_449_749_000,
        zone: Some(jiff::tz::TimeZone::UTC),
        cluster: "demo".to_owned(),
        max_script_bytes: 4 << 20,
        max_environment_bytes: 2 << 20,
        submit_line: "sbatch job.sh".to_owned(),
    }
}

/// A command line; quotes group, as a shell would have done.
fn words(line: &str) -> Vec<String> {
    let script = format!("#SBATCH {line}");
    let found = directives::scan(script.as_bytes(), "test").expect("a line of words");
    found.components.into_iter().flatten().next().map(|(_, words)| words).unwrap_or_default()
}

fn submission(line: &str, variables: &[(&str, &str)], script: &str) -> Result<Submission, Fault> {
    let around = around(variables);
    let (mut all, operands) = components(&words(line))?;
    for settings in &mut all {
        settings.add_environment(&around)?;
    }
    let script = match all[0].value("wrap") {
        Some(command) if operands.is_empty() => script::Script::wrap(command),
        Some(_) => return read_script(&all[0], &operands, &around).map(|_| unreachable!()),
        None => script::Script {
            content: script.as_bytes().to_vec(),
            shown: "job.sh".to_owned(),
            path: "/tmp/job.sh".to_owned(),
            args: operands,
            job_name: "job.sh".to_owned(),
            wrapped: false,
        },
    };
    read_directives(&mut all, &script)?;
    resolve::all(&all, &script, &around)
}

/// What an empty command line asks for, changed by `change`.
#[track_caller]
fn check(line: &str, change: impl FnOnce(&mut v1::JobSpec, &mut v1::Request, &mut v1::LaunchSpec)) {
    check_with(line, &[], SCRIPT, change);
}

#[track_caller]
fn check_with(
    line: &str,
    variables: &[(&str, &str)],
    script: &str,
    change: impl FnOnce(&mut v1::JobSpec, &mut v1::Request, &mut v1::LaunchSpec),
) {
    let mut expected = submission("", &[], SCRIPT).expect("nothing asked").spec;
    let (mut request, mut launch) =
        (expected.request.take().expect("set"), expected.launch.take().expect("set"));
    change(&mut expected, &mut request, &mut launch);
    expected.request = Some(request);
    expected.launch = Some(launch);
    let mut got = match submission(line, variables, script) {
        Ok(submission) => submission.spec,
        Err(fault) => panic!("{line}: {}", fault.text()),
    };
    // Echoes of options are checked by a test of their own.
    got.launch.as_mut().expect("set").extras.clear();
    assert_eq!(got, expected, "{line} {variables:?}");
}

#[track_caller]
fn refuse(line: &str, stderr: &str, code: i32) {
    refuse_with(line, &[], SCRIPT, stderr, code);
}

#[track_caller]
fn refuse_with(line: &str, variables: &[(&str, &str)], script: &str, stderr: &str, code: i32) {
    let fault = submission(line, variables, script).expect_err(line);
    assert_eq!((fault.text().as_str(), fault.code(exit::FAILED)), (stderr, code), "{line}");
}

fn minutes(minutes: u32) -> Option<v1::TimeLimit> {
    Some(v1::TimeLimit { limit: Some(v1::time_limit::Limit::Minutes(minutes)) })
}

fn gres(name: &str, of: &str, count: u64, scope: GresScope) -> v1::GresRequest {
    let kind = Some(v1::GresKind { name: name.to_owned(), of: of.to_owned() });
    v1::GresRequest { kind, count, scope: scope as i32 }
}

fn mib(request: v1::memory::Request) -> Option<v1::Memory> {
    Some(v1::Memory { request: Some(request) })
}

#[test]
fn nothing_asked_is_one_task_on_one_node() {
    let spec = submission("", &[], SCRIPT).expect("a job").spec;
    let request = spec.request.expect("set");
    assert_eq!((request.min_nodes, request.max_nodes, request.tasks), (1, None, 1));
    assert_eq!((request.cpus_per_task, request.tasks_given), (1, false));
    let launch = spec.launch.expect("set");
    assert_eq!((launch.workdir.as_str(), launch.umask), ("/tmp", 0o022));
    assert_eq!((spec.name.as_str(), launch.command.as_str()), ("job.sh", "/tmp/job.sh"));
    assert_eq!(launch.rlimits.len(), 2);
}

#[test]
fn sizes_follow_from_nodes_tasks_and_cpus() {
    check("-N2", |_, r, _| (r.min_nodes, r.max_nodes, r.tasks) = (2, Some(2), 2));
    check("-N 1-4", |_, r, _| (r.min_nodes, r.max_nodes) = (1, Some(4)));
    check("-n 8 -c4", |_, r, _| (r.tasks, r.tasks_given, r.cpus_per_task) = (8, true, 4));
    check("-N2 --ntasks-per-node=4", |_, r, _| {
        (r.min_nodes, r.max_nodes, r.tasks, r.tasks_per_node) = (2, Some(2), 8, Some(4));
    });
    check("-n 10 --tasks-per-node 4", |_, r, _| {
        (r.min_nodes, r.tasks, r.tasks_given, r.tasks_per_node) = (3, 10, true, Some(4));
    });
    check("-N 4 -n 2", |_, r, _| {
        (r.min_nodes, r.max_nodes, r.tasks, r.tasks_given) = (2, Some(2), 2, true);
    });
    check("--mincpus=8 --exclusive --contiguous", |_, r, _| {
        (r.min_cpus_per_node, r.exclusive, r.contiguous) = (8, true, true);
    });
    check("--hint=nomultithread", |_, r, _| r.threads_per_core = Some(1));
}

#[test]
fn memory_is_asked_in_one_way() {
    use v1::memory::Request;
    check("--mem=4G", |_, r, _| r.memory = mib(Request::PerNodeMib(4096)));
    check("--mem 0", |_, r, _| r.memory = mib(Request::PerNodeMib(0)));
    check("--mem-per-cpu=2GB", |_, r, _| r.memory = mib(Request::PerCpuMib(2048)));
    check("--mem-per-gpu=80g", |_, r, _| r.memory = mib(Request::PerGpuMib(81_920)));
    let fatal = "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.\n";
    refuse("--mem=1G --mem-per-cpu=1G", fatal, 1);
    // The stronger source silences the weaker one.
    check_with("--mem-per-cpu=1G", &[], "#!/bin/sh\n#SBATCH --mem=8G\n", |_, r, _| {
        r.memory = mib(Request::PerCpuMib(1024));
    });
}

#[test]
fn nearness_is_asked_by_switches_and_segments() {
    check("--switches=2", |_, r, _| (r.max_switches, r.switch_wait_seconds) = (Some(2), 300));
    check("--switches=1@1:00:00", |_, r, _| {
        (r.max_switches, r.switch_wait_seconds) = (Some(1), 3600);
    });
    check("--switches=1@UNLIMITED", |_, r, _| {
        (r.max_switches, r.switch_wait_seconds) = (Some(1), u32::MAX);
    });
    let variables = [("SBATCH_REQ_SWITCH", "3"), ("SBATCH_WAIT4SWITCH", "2")];
    check_with("", &variables, SCRIPT, |_, r, _| {
        (r.max_switches, r.switch_wait_seconds) = (Some(3), 120);
    });
    check("-N8 --segment=4", |_, r, _| {
        (r.min_nodes, r.max_nodes, r.tasks, r.segment) = (8, Some(8), 8, Some(4));
    });
    check_with("-N2", &[("SBATCH_SEGMENT_SIZE", "2")], SCRIPT, |_, r, _| {
        (r.min_nodes, r.max_nodes, r.tasks, r.segment) = (2, Some(2), 2, Some(2));
    });
    check("--exclusive=topo", |_, r, _| r.topology_alone = true);
    refuse(
        "-N6 --segment=4",
        "sbatch: error: --segment=4: 6 nodes cannot be cut into groups of 4; give --nodes\n",
        1,
    );
}

#[test]
fn gpus_are_asked_in_every_spelling() {
    let node = |of: &str, n| vec![gres("gpu", of, n, GresScope::Node)];
    check("--gres=gpu", |_, r, _| r.gres = node("", 1));
    check("--gres=gpu:2", |_, r, _| r.gres = node("", 2));
    check("--gres=gpu:h100-96:1", |_, r, _| r.gres = node("h100-96", 1));
    check("--gpus-per-node=h100:8", |_, r, _| r.gres = node("h100", 8));
    check("--gpus-per-node=0", |_, _, _| {});
    check("--gres=nvme:100", |_, r, _| r.gres = vec![gres("nvme", "", 100, GresScope::Node)]);
    check("-G 8", |_, r, _| r.gres = vec![gres("gpu", "", 8, GresScope::Job)]);
    check("--gpus=p100:2", |_, r, _| r.gres = vec![gres("gpu", "p100", 2, GresScope::Job)]);
    check("-n4 --gpus-per-task=l40s:1", |_, r, _| {
        (r.tasks, r.tasks_given) = (4, true);
        r.gres = vec![gres("gpu", "l40s", 1, GresScope::Task)];
    });
    check("--gpus=4 --gpus-per-task=2", |_, r, _| {
        (r.tasks, r.tasks_given) = (2, true);
        r.gres = vec![gres("gpu", "", 2, GresScope::Task)];
    });
    check("--gpus=16 --gpus-per-node=8", |_, r, _| {
        (r.min_nodes, r.max_nodes, r.tasks) = (2, Some(2), 2);
        r.gres = node("", 8);
    });
    check("--gpus=4 --ntasks-per-gpu=2", |_, r, _| {
        (r.tasks, r.tasks_given) = (8, true);
        r.gres = vec![gres("gpu", "", 4, GresScope::Job)];
    });
    check("--tres-per-task=cpu=4,gres/gpu:h100=1 -n2", |_, r, _| {
        (r.tasks, r.tasks_given, r.cpus_per_task) = (2, true, 4);
        r.gres = vec![gres("gpu", "h100", 1, GresScope::Task)];
    });
    check("--gpus-per-socket=1 --sockets-per-node=2 --cpus-per-gpu=8", |_, r, _| {
        (r.sockets_per_node, r.cpus_per_gpu) = (Some(2), Some(8));
        r.gres = vec![gres("gpu", "", 1, GresScope::Socket)];
    });
}

#[test]
fn gpus_that_contradict_each_other_are_refused() {
    let gres = "sbatch: error: Invalid generic resource (gres) specification\n";
    let with = |line: &str| format!("sbatch: error: {line}\n{gres}");
    refuse("--gres=gpu:x:y", gres, 1);
    refuse("--gres=gpu:-1", gres, 1);
    refuse("--gpus=", gres, 1);
    refuse(
        "--gpus-per-task=1",
        &with(
            "Failed to validate job spec. --gpus-per-task used without either --gpus or \
             -n/--ntasks is not allowed.",
        ),
        1,
    );
    refuse(
        "--gres=gpu:1 --gpus-per-node=2",
        &with("--gpus-per-node and --gres=gpu ask for the same thing: give one"),
        1,
    );
    refuse("--gpus-per-socket=1", &with("--gpus-per-socket needs --sockets-per-node"), 1);
    refuse(
        "--ntasks-per-gpu=1 --gpus=2 --ntasks-per-node=2",
        &with("--ntasks-per-gpu and --ntasks-per-node exclude each other"),
        1,
    );
    refuse(
        "--ntasks-per-gpu=1 --gpus=2 -N1-2",
        &with("--ntasks-per-gpu needs one node count, not a range"),
        1,
    );
    refuse(
        "--gpus=3 --gpus-per-node=2",
        &with("3 GPUs cannot be shared out by --gpus-per-node of 2"),
        1,
    );
    refuse(
        "-c2 --cpus-per-gpu=2",
        "sbatch: error: --cpus-per-gpu is mutually exclusive with --cpus-per-task\n",
        1,
    );
}

#[test]
fn the_rest_of_the_job_is_read() {
    check("-t 5 -J x -p a,b -A lab@x -q high", |s, _, _| {
        s.time_limit = minutes(5);
        s.name = "x".to_owned();
        s.partitions = vec!["a".to_owned(), "b".to_owned()];
        (s.account, s.qos) = ("lab@x".to_owned(), "high".to_owned());
    });
    check("--time-min=0-12:00 -t 02-00:00:00", |s, _, _| {
        (s.time_min, s.time_limit) = (minutes(720), minutes(2880));
    });
    check("-a 0-15:4%2 -H --nice --requeue", |s, _, _| {
        s.array = "0-15:4%2".to_owned();
        (s.held, s.nice, s.requeue) = (true, 100, Some(true));
    });
    check("--nice=-5 --no-requeue --priority=7 --comment='hi there'", |s, _, _| {
        (s.nice, s.requeue, s.priority) = (-5, Some(false), Some(7));
        s.comment = "hi there".to_owned();
    });
    check("-d afterok:1:2,afterany:3_4 --kill-on-invalid-dep=yes", |s, _, _| {
        s.dependency = "afterok:1:2,afterany:3_4".to_owned();
        s.kill_on_invalid_dependency = true;
    });
    check("-C '[opt|wsm]' -w n[1-2] -x n3", |_, r, _| {
        r.constraint = "[opt|wsm]".to_owned();
        r.required_nodes = vec!["n1".to_owned(), "n2".to_owned()];
        r.excluded_nodes = vec!["n3".to_owned()];
    });
    check("-L ansys:2,matlab --reservation=r --wckey=k", |s, _, _| {
        let license = |name: &str, count| v1::License { name: name.to_owned(), count };
        s.licenses = vec![license("ansys", 2), license("matlab", 1)];
        (s.reservation, s.wckey) = ("r".to_owned(), "k".to_owned());
    });
    check("-o %x-%j.out --err=e.log -i in --open-mode=append -k -O", |_, _, l| {
        (l.stdout, l.stderr) = (Some("%x-%j.out".to_owned()), Some("e.log".to_owned()));
        (l.stdin, l.append, l.no_kill, l.overcommit) = (Some("in".to_owned()), true, true, true);
    });
    check("--signal=B:USR1@60 --mail-type=begin,END --mail-user=ann", |_, _, l| {
        l.signal = Some(v1::SignalRequest { signal: 10, before_seconds: 60, batch_only: true });
        (l.mail_type, l.mail_user) = ("BEGIN,END".to_owned(), "ann".to_owned());
    });
    check("-D / --propagate=NOFILE", |_, _, l| {
        l.workdir = "/".to_owned();
        l.rlimits.truncate(1);
    });
}

#[test]
fn times_of_day_that_have_passed_are_tomorrows() {
    check("--begin=17:00", |s, _, _| s.begin = 1_795_449_749_000 + 3_451_000);
    check("--begin=16:00", |s, _, _| s.begin = 1_795_449_749_000 - 149_000 + 86_400_000);
    check("--begin=now+1hour", |s, _, _| s.begin = 1_795_449_749_000 + 3_600_000);
    check("--begin=2020-01-01", |_, _, _| {});
    check("--deadline=2026-11-24", |s, _, _| s.deadline = 1_795_478_400_000);
}

#[test]
fn the_command_line_beats_the_environment_and_that_the_script() {
    let script = "#!/bin/sh\n#SBATCH -t 1 -p script -J s\n#SBATCH --requeue\n";
    let variables = [("SBATCH_TIMELIMIT", "2"), ("SBATCH_PARTITION", "env")];
    check_with("-t 3", &variables, script, |s, _, _| {
        s.time_limit = minutes(3);
        s.partitions = vec!["env".to_owned()];
        (s.name, s.requeue) = ("s".to_owned(), Some(true));
    });
    check_with("--no-requeue", &[], script, |s, _, _| {
        s.time_limit = minutes(1);
        s.partitions = vec!["script".to_owned()];
        (s.name, s.requeue) = ("s".to_owned(), Some(false));
    });
    check_with("", &[("SBATCH_EXCLUSIVE", ""), ("SBATCH_OVERCOMMIT", "1")], SCRIPT, |_, r, l| {
        (r.exclusive, l.overcommit) = (true, true);
    });
}

#[test]
fn settings_say_where_they_come_from() {
    let script = "#!/bin/sh\n#SBATCH -p gpu\n";
    let verbose =
        submission("-v -n2", &[("SBATCH_QOS", "q")], script).expect("a job").manner.verbose;
    for line in [
        "ntasks               : 2 (the command line)",
        "qos                  : q (SBATCH_QOS)",
        "partition            : gpu (line 2 of the script)",
    ] {
        assert!(verbose.iter().any(|v| v == line), "{line} in {verbose:?}");
    }
}

#[test]
fn wrong_values_exit_with_slurms_codes() {
    for (line, option) in [
        ("-t abc", "time"),
        ("-t -5", "time"),
        ("--time-min=x", "time-min"),
        ("--mem=abc", "mem"),
        ("--mem=-1", "mem"),
        ("--signal=FOO", "signal"),
        ("--mail-type=FOO", "mail-type"),
        ("--exclusive=foo", "exclusive"),
        ("--segment=x", "segment"),
        ("--switches=1@soon", "switches"),
        ("--open-mode=x", "open-mode"),
        ("-m foo", "distribution"),
        ("--priority=x", "priority"),
        ("--no-kill=x", "no-kill"),
        ("--requeue=x", "requeue"),
    ] {
        refuse(line, &format!("sbatch: error: Invalid --{option} specification\n"), 255);
    }
    refuse(
        "--begin=foo",
        "sbatch: error: Invalid time specification (pos=0): foo\n\
         sbatch: error: Invalid --begin specification\n",
        255,
    );
    refuse(
        "--nice=99999999999",
        "sbatch: error: Invalid --nice value, out of range (+/- 2147483645)\n\
         sbatch: error: Invalid --nice specification\n",
        255,
    );
    refuse("--gpu-bind=foo", "sbatch: error: Invalid --gpu-bind argument: gpu:foo\n", 255);
    refuse(
        "-N 5-2",
        "sbatch: error: Maximum node count 2 is less than minimum node count 5\n",
        255,
    );
    refuse(
        "-N 0",
        "sbatch: error: \"0\" is not a valid node count\n\
         sbatch: error: Invalid --nodes specification\n",
        255,
    );
    for (line, value, option) in
        [("-n 0", "0", "ntasks"), ("-n abc", "abc", "ntasks"), ("-c 0", "0", "cpus-per-task")]
    {
        let text = format!("sbatch: error: Invalid numeric value \"{value}\" for --{option}.\n");
        refuse(line, &text, 1);
    }
}

#[test]
fn what_the_controller_would_refuse_keeps_its_text() {
    let check = |line: &str, detail: &str, text: &str| {
        let stderr = format!(
            "sbatch: error: {detail}\nsbatch: error: Batch job submission failed: {text}\n"
        );
        refuse(line, &stderr, 1);
    };
    let array = "Invalid job array specification";
    check("-a 5-1", "invalid job array \"5-1\": a range runs backwards", array);
    check("-a x", "invalid job array \"x\": use a list like 0-15:4,20%2", array);
    check(
        "-a 0-99999999",
        "invalid job array \"0-99999999\": an index reaches the cluster's max_array_size",
        array,
    );
    check(
        "-d foo",
        "invalid dependency \"foo\": the kinds are after, afterany, afterok, afternotok, \
         aftercorr and singleton",
        "Job dependency problem",
    );
    check(
        "-w n[1-999999999]",
        "invalid hostlist \"n[1-999999999]\": it names more than 65536 hosts",
        "Invalid node name specified",
    );
    check(
        "-C a&",
        "invalid feature constraint \"a&\": a feature name is missing",
        "Invalid feature specification",
    );
}

#[test]
fn a_script_that_is_none_is_refused() {
    let check = |script: &str, stderr: &str| refuse_with("", &[], script, stderr, 1);
    check("", "sbatch: error: Batch script is empty!\n");
    check(" \n\t\n", "sbatch: error: Batch script contains only whitespace!\n");
    check(
        "echo\n",
        "sbatch: error: This does not look like a batch script.  The first\n\
         sbatch: error: line must start with #! followed by the path to an interpreter.\n\
         sbatch: error: For instance: #!/bin/sh\n",
    );
    check(
        "#!/bin/sh\r\nls\r\n",
        "sbatch: error: Batch script contains DOS line breaks (\\r\\n)\n\
         sbatch: error: instead of expected UNIX line breaks (\\n).\n",
    );
    check(
        "#!/bin/sh\nls\0\n",
        "sbatch: error: The Slurm controller does not allow scripts that\n\
         sbatch: error: contain a NULL character '\\0'.\n",
    );
    let large = format!("#!/bin/sh\n{}", "#\n".repeat(3 << 20));
    let fault = submission("", &[], &large).expect_err("too large");
    assert!(fault.text().contains("Batch script is too large: 6291466 bytes"));
}

#[test]
fn directives_that_are_wrong_are_named() {
    let check = |line: &str, stderr: &str, code| {
        refuse_with("", &[], &format!("#!/bin/sh\n#SBATCH {line}\n"), stderr, code);
    };
    check("foo bar", "sbatch: error: Invalid directive found in batch script: foo\n", 255);
    let unknown = "sbatch: unrecognized option '--nosuch'\n\
                   Try \"sbatch --help\" for more information\n";
    check("--nosuch", unknown, 255);
    refuse("--nosuch", unknown, 255);
    check(
        "--job-name=\"x",
        "sbatch: fatal: job.sh: line 2: Unmatched `\"` in [--job-name=\"x]\n",
        1,
    );
    check(
        "--tmp=1G",
        "sbatch: error: --tmp is not supported (line 2 of the script): disk space of nodes is \
         not tracked\n",
        1,
    );
}

#[test]
fn components_come_from_the_command_line_and_the_script() {
    let sizes = |line: &str, script: &str| -> Vec<(String, u32, String)> {
        let found = submission(line, &[], script).expect(line);
        let all = std::iter::once(&found.spec).chain(&found.components);
        all.map(|spec| {
            let nodes = spec.request.as_ref().map_or(0, |request| request.min_nodes);
            (spec.name.clone(), nodes, spec.partitions.join(","))
        })
        .collect()
    };
    let of = |name: &str, nodes, partition: &str| (name.to_owned(), nodes, partition.to_owned());
    let script = "#!/bin/sh\n#SBATCH -N2 -J pair -p gpu\n#SBATCH hetjob\n#SBATCH -N3\n";
    assert_eq!(sizes("", script), [of("pair", 2, "gpu"), of("pair", 3, "")]);
    assert_eq!(sizes("-N1 job.sh", script), [of("pair", 1, "gpu"), of("pair", 3, "")]);
    assert_eq!(sizes("-N1 : -N4 -J b job.sh", script), [of("pair", 1, "gpu"), of("b", 4, "")]);
    assert_eq!(sizes("-N1 job.sh", SCRIPT), [of("job.sh", 1, "")]);
}

#[test]
fn headers_of_real_tools_are_read() {
    let submitit = "#!/bin/bash\n\
        #SBATCH --cpus-per-task=2\n#SBATCH --error=/tmp/%j_0_log.err\n\
        #SBATCH --gpus-per-node=1\n#SBATCH --job-name=submitit\n#SBATCH --mem=200MB\n\
        #SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --open-mode=append\n\
        #SBATCH --output=/tmp/%j_0_log.out\n#SBATCH --partition=main\n\
        #SBATCH --signal=USR2@90\n#SBATCH --time=5\n#SBATCH --wckey=submitit\n\nsrun true\n";
    check_with("", &[], submitit, |s, r, l| {
        (r.cpus_per_task, r.min_nodes, r.max_nodes, r.tasks) = (2, 2, Some(2), 2);
        r.tasks_per_node = Some(1);
        r.memory = mib(v1::memory::Request::PerNodeMib(200));
        r.gres = vec![gres("gpu", "", 1, GresScope::Node)];
        (s.name, s.wckey) = ("submitit".to_owned(), "submitit".to_owned());
        (s.partitions, s.time_limit) = (vec!["main".to_owned()], minutes(5));
        l.signal = Some(v1::SignalRequest { signal: 12, before_seconds: 90, batch_only: false });
        l.append = true;
        l.stdout = Some("/tmp/%j_0_log.out".to_owned());
        l.stderr = Some("/tmp/%j_0_log.err".to_owned());
    });
    let nextflow = "#!/bin/bash\n#SBATCH -J nf-x\n#SBATCH -o /tmp/.command.log\n\
        #SBATCH --no-requeue\n#SBATCH --signal B:USR2@30\n#SBATCH -c 4\n#SBATCH -t 01:00:00\n\
        #SBATCH --mem 8192M\n#SBATCH -p main\n#SBATCH --array 0-9\n";
    check_with("", &[], nextflow, |s, r, l| {
        (s.name, s.requeue, s.array) = ("nf-x".to_owned(), Some(false), "0-9".to_owned());
        (s.partitions, s.time_limit) = (vec!["main".to_owned()], minutes(60));
        r.cpus_per_task = 4;
        r.memory = mib(v1::memory::Request::PerNodeMib(8192));
        l.stdout = Some("/tmp/.command.log".to_owned());
        l.signal = Some(v1::SignalRequest { signal: 12, before_seconds: 30, batch_only: true });
    });
    let torchx = "#!/bin/sh\n#SBATCH --job-name=r-0 --requeue --ntasks-per-node=1 --nodes=2 # x\n";
    check_with("--parsable", &[], torchx, |s, r, _| {
        (s.name, s.requeue) = ("r-0".to_owned(), Some(true));
        (r.min_nodes, r.max_nodes, r.tasks, r.tasks_per_node) = (2, Some(2), 2, Some(1));
    });
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for row in options::ROWS.iter().filter(|r| r.support == options::Support::Refused) {
        let name = row.opt.long;
        let line = match row.opt.takes {
            crate::getopt::Takes::Nothing => format!("--{name}"),
            _ => format!("--{name}=1"),
        };
        let stderr = format!("sbatch: error: --{name} is not supported: {}\n", row.note);
        refuse(&line, &stderr, 1);
    }
    for (line, word) in [
        ("--exclusive=user", "--exclusive=user"),
        ("-N 1,2,4", "--nodes=1,2,4"),
        ("--signal=R:USR1", "--signal=R:USR1"),
        ("--requeue=expedite", "--requeue=expedite"),
        ("--tres-per-task=license/x=1", "--tres-per-task=license/x=1"),
    ] {
        let fault = submission(line, &[], SCRIPT).expect_err(line);
        let stderr = format!("sbatch: error: {word} is not supported");
        assert!(fault.text().starts_with(&stderr), "{line}: {}", fault.text());
        assert_eq!(fault.code(77), 77);
    }
}

#[test]
fn names_with_control_characters_are_refused() {
    let around = around(&[]);
    for name in ["a\nb", "a\u{1b}[31m", "a\tb"] {
        let mut settings = Settings::default();
        let fault = settings.add_command_line(&["-J".to_owned(), name.to_owned()]);
        let fault = fault.expect_err(name);
        assert_eq!(fault.code(1), 1);
        assert_eq!(fault.text().lines().count(), 1, "{}", fault.text());
        assert!(fault.text().starts_with("sbatch: error: Invalid --job-name specification"));
    }
    assert!(Settings::default().add_environment(&around).is_ok());
}

#[test]
fn directories_are_no_output_and_files_no_working_directory() {
    refuse(
        "-o /tmp",
        "sbatch: error: Invalid --output specification: \"/tmp\" is a directory, not a file\n",
        1,
    );
    refuse(
        "-D /nonexistent/dir",
        "sbatch: error: Invalid --chdir specification: /nonexistent/dir is no directory\n",
        1,
    );
}

#[test]
fn options_that_steps_read_travel_with_the_job() {
    let job = submission("--hint=nomultithread -m block -c2 --ntasks-per-socket=1", &[], SCRIPT)
        .expect("a job");
    let extras = job.spec.launch.expect("set").extras;
    let got: Vec<_> = extras.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    assert_eq!(
        got,
        [
            ("cpus-per-task", "2"),
            ("distribution", "block"),
            ("hint", "nomultithread"),
            ("ntasks-per-socket", "1"),
        ]
    );
    assert_eq!(job.notices, ["--ntasks-per-socket: placement does not follow it"]);
}

fn exported(line: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let job = submission(line, variables, SCRIPT).expect("a job");
    let text = String::from_utf8(job.environment).expect("made of texts");
    let mut names: Vec<String> =
        text.split('\0').filter(|v| !v.is_empty()).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn export_chooses_what_travels() {
    let here = [("A", "1"), ("B", "2"), ("SLURM_X", "3"), ("HOME", "/h"), ("PATH", "/mine")];
    assert_eq!(exported("", &here), ["A=1", "B=2", "HOME=/h", "PATH=/mine", "SLURM_X=3"]);
    assert_eq!(exported("--export=NIL", &here), ["SLURM_EXPORT_ENV=NIL", "SLURM_X=3"]);
    let none = exported("--export=none", &here);
    assert!(none.contains(&"HOME=/h".to_owned()) && none.contains(&"SLURM_X=3".to_owned()));
    assert!(!none.iter().any(|v| v.starts_with("A=") || v == "PATH=/mine"));
    let some = exported("--export=\"A,C='x,y'\"", &here);
    assert!(some.contains(&"A=1".to_owned()) && some.contains(&"C=x,y".to_owned()), "{some:?}");
    assert!(!some.iter().any(|v| v.starts_with("B=")));
    let all = exported("--export=ALL,B=9", &here);
    assert!(all.contains(&"A=1".to_owned()) && all.contains(&"B=9".to_owned()));
}

#[test]
fn a_job_submitted_from_a_job_does_not_inherit_its_shape() {
    let inside = [
        ("SLURM_JOB_ID", "7"),
        ("SLURM_NTASKS", "8"),
        ("SLURM_ARRAY_TASK_ID", "3"),
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("SLURM_MINE", "x"),
        ("A", "1"),
    ];
    assert_eq!(exported("", &inside), ["A=1", "SLURM_MINE=x"]);
    // Outside of a job they are the user's own.
    assert_eq!(exported("", &[("SLURM_NTASKS", "8")]), ["SLURM_NTASKS=8"]);
}

#[test]
fn an_environment_beyond_the_bound_is_refused() {
    let large = "x".repeat(3 << 20);
    let fault = submission("", &[("BIG", &large)], SCRIPT).expect_err("too large");
    assert!(fault.text().starts_with("sbatch: error: The environment is too large: 3145733 bytes"));
}

#[test]
fn wrap_makes_a_script() {
    let job = submission("--wrap='echo hi'", &[], "").expect("a job");
    assert_eq!(job.spec.name, "wrap");
    let script = String::from_utf8(job.script).expect("text");
    assert!(script.starts_with("#!/bin/sh\n") && script.ends_with("echo hi\n"), "{script}");
    refuse(
        "--wrap=x file",
        "sbatch: error: Script arguments not permitted with --wrap option\n",
        1,
    );
}

#[test]
fn scripts_are_found_as_slurm_finds_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let (bin, here) = (dir.path().join("bin"), dir.path().join("here"));
    for (folder, name) in [(&bin, "tool.sh"), (&bin, "both.sh"), (&here, "both.sh")] {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join(name), SCRIPT).expect("a script");
    }
    let path = bin.to_str().expect("UTF-8").to_owned();
    let around = Surroundings { cwd: here.clone(), ..around(&[("PATH", &path)]) };
    let open = |name: &str| script::Script::open(name, &[], None, &around).map(|s| s.path);
    let at = |folder: &PathBuf, name: &str| Ok(folder.join(name).to_str().expect("UTF-8").into());
    assert_eq!(open("both.sh"), at(&here, "both.sh"));
    assert_eq!(open("./both.sh"), at(&here, "both.sh"));
    assert_eq!(open("tool.sh"), at(&bin, "tool.sh"));
    let missing = Err(Fault::Refused("Unable to open file ./tool.sh".to_owned()));
    assert_eq!(open("./tool.sh"), missing);
}

#[test]
fn only_this_cluster_is_spoken_to() {
    let cluster = |line: &str| submission(line, &[], SCRIPT).map(|s| s.manner.cluster);
    assert_eq!(cluster(""), Ok(None));
    assert_eq!(cluster("-M demo"), Ok(Some("demo".to_owned())));
    assert_eq!(cluster("--clusters=all"), Ok(Some("demo".to_owned())));
    assert!(cluster("-M other").is_err());
}

#[test]
fn the_option_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility/sbatch.md");
    if std::env::var_os("MUSTER_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().expect("a folder"))
            .and_then(|()| std::fs::write(path, options::page()))
            .expect("the page can be written");
    }
    assert_eq!(std::fs::read_to_string(path).expect("the page exists"), options::page());
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_directive_makes_it_panic(text in "[-=a-zN0-9:,@\"' #\\\\\\[\\]]{0,40}") {
            let _ = submission("", &[], &format!("#!/bin/sh\n#SBATCH {text}\n"));
        }

        #[test]
        fn no_value_makes_it_panic(row in 0..options::ROWS.len(), value in "[-a-z0-9:,@%./ ]{0,16}") {
            let name = options::ROWS[row].opt.long;
            let mut settings = Settings::default();
            if settings.add_command_line(&[format!("--{name}={value}")]).is_ok() {
                let script = script::Script { content: SCRIPT.into(), ..script::Script::default() };
                let _ = resolve::resolve(&settings, script, &around(&[]));
            }
        }
    }
}
