//! Slices of one array, one after another in one shim.

use super::*;

#[test]
fn tasks_of_one_series_follow_each_other_in_one_shim_as_if_each_had_its_own() {
    for mode in modes() {
        let world = World::new(mode);
        let run = |change: &dyn Fn(&mut Launch), script: &str| {
            let mut launch = world.launch(script);
            change(&mut launch);
            let dir = SliceDir::of(&world.spool(), launch.job, launch.attempt);
            dir.write_launch(&launch).expect("a launch record");
            let pid = world.launcher.launch_in_series(&dir, "7").expect("a shim");
            let exit = world.exit();
            assert_eq!(exit.job, launch.job);
            world.until_idle(pid);
            (pid, dir, exit)
        };
        let same = |_: &mut Launch| {};
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3";
        let (first, dir, exit) = run(&same, busy);
        assert_eq!(status(&exit), (3, 0));
        let used = exit.usage.expect("usage").user_cpu_ms;
        let (second, _, exit) = run(&same, "sleep 1000 & exit 4");
        assert_eq!((second, status(&exit)), (first, (4, 0)), "{mode}");
        let cpu = exit.usage.expect("usage").user_cpu_ms;
        assert!(cpu < used, "{mode}: {cpu} ms are not counted anew");
        let limited = |l: &mut Launch| {
            l.limits = Some(SliceLimits { pids_max: 77, ..SliceLimits::default() });
        };
        let (third, _, exit) = run(&limited, "cat /proc/self/cgroup; exit 5");
        assert_eq!((third, status(&exit)), (first, (5, 0)), "{mode}: other limits, another group");
        let mut late = ShimClient::connect(&dir).expect("the shim is there for others");
        let answer = late.stop(StopCause::Cancelled, Duration::ZERO);
        assert!(answer.expect_err("over").to_string().contains("has ended"), "{mode}");
        assert_eq!(sweep(&dir, &world.cgroups()).expect("nothing to do"), 0);
        let (fourth, dir, exit) = run(&limited, "exit 6");
        assert_eq!((fourth, status(&exit)), (first, (6, 0)), "{mode}: not harmed by a sweep");
        // Killed while idle: the next task finds another, and nothing is left of this one.
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).expect("a kill");
        wait_for(|| !alive(first.cast_signed()));
        assert!(matches!(adopt(&dir), Ok(Adopted::Exited(_))));
        let (fifth, _, exit) = run(&limited, "exit 7");
        assert_eq!(status(&exit), (7, 0));
        assert_ne!(fifth, first, "{mode}");
        let name = format!("shim.{first}");
        wait_for(|| world.cgroups().open(&name).expect("readable").is_none());
    }
}

#[test]
fn a_task_that_hangs_before_it_is_its_script_holds_nobody_up_and_stands_for_itself() {
    let score = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a score");
        text.trim().to_owned()
    };
    if fs::write("/proc/self/oom_score_adj", "-700").is_err() {
        println!("skipped: protecting a shim from the kernel's killer needs root");
        return;
    }
    let world = World::new(modes()[0]);
    let begin = |launch: &Launch| world.begin_in_series(launch);
    for job in 1..=2 {
        let (shim, _) = begin(&world.launch("cat /proc/self/oom_score_adj"));
        world.exit();
        world.until_idle(shim);
        world.until(&format!("slurm-{job}.out"), "0\n");
        assert_eq!(score(&shim.to_string()), "-700");
    }
    let pipe = world.work().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut launch = world.launch("echo through");
    launch.spec.as_mut().expect("a spec").stdout = Some("pipe".to_owned());
    let (shim, dir) = begin(&launch);
    wait_for(|| ShimClient::connect(&dir).is_ok_and(|mut client| client.status().is_ok()));
    assert_eq!(fs::read_to_string(&pipe).expect("the output"), "through\n");
    assert_eq!(status(&world.exit()), (0, 0));
    world.until_idle(shim);
    assert_eq!(score(&shim.to_string()), "-700");
    fs::write("/proc/self/oom_score_adj", "0").expect("the old score");
}

#[test]
fn an_idle_shim_ends_by_itself_though_others_were_started_beside_it() {
    let world = World::new(modes()[0]);
    let launch = world.launch("true");
    let dir = SliceDir::of(&world.spool(), launch.job, launch.attempt);
    dir.write_launch(&launch).expect("a launch record");
    let shim = world.launcher.launch_in_series(&dir, "7").expect("a shim");
    world.exit();
    let beside = world.start(&world.launch("echo ready; sleep 1000"));
    world.until("slurm-2.out", "ready");
    wait_for(|| !alive(shim.cast_signed()));
    assert!(!world.spool().join("shims").join(shim.to_string()).exists(), "its socket is gone");
    let mut other = ShimClient::connect(&beside).expect("a shim");
    other.stop(StopCause::Cancelled, Duration::ZERO).expect("an answer");
    world.exit();
}

#[test]
fn a_running_task_of_a_series_is_adopted_spoken_to_and_lost_with_its_shim() {
    for mode in modes() {
        let world = World::new(mode);
        let start = |script: &str| {
            let launch = world.launch(script);
            let dir = SliceDir::of(&world.spool(), launch.job, launch.attempt);
            dir.write_launch(&launch).expect("a launch record");
            (dir.clone(), world.launcher.launch_in_series(&dir, "7").expect("a shim"))
        };
        let (_, first) = start("true");
        world.exit();
        world.until_idle(first);
        let (dir, shim) = start("echo $$ >pid; echo ready; sleep 1000");
        assert_eq!(shim, first, "{mode}");
        world.until("slurm-2.out", "ready");
        let Ok(Adopted::Alive(mut client)) = adopt(&dir) else { panic!("{mode}: not alive") };
        assert!(client.status().expect("an answer").running);
        kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL).expect("a kill");
        let gone = world.notice(|k| matches!(k, NoticeKind::Gone(_)));
        assert_eq!(gone.job, 2, "{mode}: the task that ran, not the one before");
        let cgroups =
            if mode == Mode::None { Cgroups::None(String::new()) } else { world.cgroups() };
        assert_eq!(sweep(&dir, &cgroups).expect("a sweep"), 0);
        let pid = world.output("pid").trim().parse().expect("a pid");
        wait_for(|| !alive(pid));
    }
}

#[test]
fn a_task_without_a_fork_is_the_users_as_much_as_one_with() {
    if !root("being somebody else") {
        return;
    }
    let world = World::new(modes()[0]);
    // All that a process has from those before it.
    let looks = "id; umask; pwd; ulimit -n; ulimit -c; ls -l /proc/self/fd | grep -c socket;
        grep -E '^(Uid|Gid|Groups|Cap|Sig[BI]|NoNew|Cpus_a)' /proc/self/status;
        cat /proc/self/cgroup; test $SLURM_TASK_PID = $$; echo $?; env | grep -v _PID= | sort;
        test $$ = $(cut -d' ' -f6 /proc/$$/stat); echo leads $?; echo err >&2";
    let run = |output: &str, change: &dyn Fn(&mut Launch)| {
        let mut launch = world.launch(looks);
        launch.user = Some(User { uid: NOBODY, gid: NOBODY, name: "nobody".to_owned() });
        spec(&mut launch).umask = 0o027;
        spec(&mut launch).stdout = Some(output.to_owned());
        spec(&mut launch).args = vec!["an argument".to_owned()];
        let limit = |name: &str, soft| Rlimit { name: name.to_owned(), soft };
        spec(&mut launch).rlimits = vec![limit("nofile", 77), limit("core", 0)];
        change(&mut launch);
        let dir = SliceDir::of(&world.spool(), launch.job, launch.attempt);
        dir.write_launch(&launch).expect("a launch record");
        let shim = world.launcher.launch_in_series(&dir, "7").expect("a shim");
        let exit = world.exit();
        world.until_idle(shim);
        (shim, status(&exit), fs::read_to_string(world.work().join(output)).unwrap_or_default())
    };
    // The groups of the first are looked up, which is done after a fork.
    let (shim, ended, forked) = run("forked", &|_| {});
    let (same, again, not_forked) = run("not", &|_| {});
    assert_eq!((shim, ended, again), (same, (0, 0), (0, 0)));
    assert_eq!(not_forked, forked);
    assert!(forked.contains("uid=65534") && forked.contains("err"), "{forked}");
    // What cannot go as written is told in the same words.
    let lost = |launch: &mut Launch| spec(launch).workdir = "/nowhere".to_owned();
    let (_, ended, text) = run(&world.work().join("lost").to_string_lossy(), &lost);
    assert_eq!(ended, (0, 0));
    assert!(text.contains("couldn't chdir to `/nowhere'"), "{text}");
    let (_, ended, _) = run("/nowhere/out", &|_| {});
    assert_eq!(ended, (0, 53));
}

#[test]
fn a_shim_that_is_killed_while_its_task_hangs_leaves_nothing() {
    if !root("control groups") {
        return;
    }
    let world = World::new(modes()[0]);
    let begin = |launch: &Launch| world.begin_in_series(launch);
    let (shim, _) = begin(&world.launch("true"));
    world.exit();
    world.until_idle(shim);
    let pipe = world.work().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut launch = world.launch("echo ran > ran");
    spec(&mut launch).stdout = Some("pipe".to_owned());
    let (same, dir) = begin(&launch);
    assert_eq!(same, shim);
    let group = || world.cgroups().open(&format!("shim.{shim}")).expect("readable");
    let held = || group().is_some_and(|g| g.procs().is_ok_and(|procs| procs.len() == 1));
    wait_for(|| ShimClient::connect(&dir).is_ok_and(|mut client| client.status().is_ok()));
    wait_for(held);
    kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL).expect("a kill");
    wait_for(|| !alive(shim.cast_signed()));
    wait_for(|| matches!(adopt(&dir), Ok(Adopted::Gone(_))));
    let left = group().expect("it is there").procs().expect("readable");
    assert_eq!(left.len(), 1, "the task goes on without its shim");
    assert_eq!(sweep(&dir, &world.cgroups()).expect("swept"), 0);
    assert!(group().is_none() && !alive(left[0].as_raw()));
    drop(fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("the pipe"));
    assert!(!world.work().join("ran").exists());
}
