//! Steps across hosts: agents that are reached over TCP alone, and hosts that are cut off.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::lab::Lab;
use crate::harness::{Cluster, Said, finish, finish_with, lives, sorted, wait, wait_or};

/// A cluster of two nodes, and a host without any of their sockets: a config with another folder
/// of sockets, where only a token daemon serves.
struct Elsewhere {
    cluster: Cluster,
    tokens: Child,
}

impl Elsewhere {
    fn start() -> Elsewhere {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let names = ["localhost", "n1", "n2"].map(str::to_owned);
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        let cluster = Cluster::edited(&["--nodes=2", "--cpus-per-node=4"], |cluster, text| {
            let dir = cluster.dir();
            fs::write(dir.join("cert.pem"), key.cert.pem()).unwrap();
            fs::write(dir.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
            let dir = dir.display();
            let text = text
                .replace(
                    "[security]\n",
                    &format!(
                        "[security]\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\n\
                         tls_ca = \"{dir}/cert.pem\"\n"
                    ),
                )
                .replace("[agent]\n", "[agent]\nlisten = \"0.0.0.0:0\"\n")
                .replace("[[node]]\n", "[[node]]\naddress = \"127.0.0.[1-2]\"\n");
            format!("{text}\n[controller]\nlisten = \"127.0.0.1:{port}\"\n")
        });
        let own = fs::read_to_string(cluster.dir().join("muster.toml")).unwrap();
        let run = cluster.work().join("elsewhere");
        fs::create_dir(&run).unwrap();
        let line = own.lines().find(|line| line.starts_with("run_dir")).unwrap();
        let text = own
            .replace(line, &format!("run_dir = \"{}\"", run.display()))
            .replace("[controller]\n", &format!("[controller]\naddress = \"localhost:{port}\"\n"));
        let config = cluster.work().join("elsewhere.toml");
        fs::write(&config, text).unwrap();
        let tokens = Command::new(cluster.program())
            .args(["tokens", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let elsewhere = Elsewhere { cluster, tokens };
        wait("the token daemon", || run.join("tokens.sock").exists());
        elsewhere
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.cluster.command(words);
        command.env("MUSTER_CONF", self.cluster.work().join("elsewhere.toml"));
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        finish(self.command(words))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.tokens.kill();
        let _ = self.tokens.wait();
    }
}

#[test]
fn a_host_without_sockets_of_the_cluster_has_all_of_a_step() {
    let far = Elsewhere::start();
    let said = far.run(&["srun", "-N2", "-l", "bash", "-c", "echo $SLURMD_NODENAME; exit 6"]);
    assert_eq!((said.code, sorted(&said.out)), (6, vec!["0: n1", "1: n2"]), "{said:?}");
    let typed = b"one\ntwo\n";
    let said = finish_with(far.command(&["srun", "-N2", "-l", "cat"]), typed);
    assert_eq!(sorted(&said.out), ["0: one", "0: two", "1: one", "1: two"], "{said:?}");
    // A job on the way: looked at, signalled, joined.
    let held = "srun bash -c 'trap \"echo usr; exit 4\" USR1; echo ready; while :; do sleep 0.1; done'; echo code $?";
    let wrap = format!("--wrap={held}");
    let said = far.run(&["sbatch", "--parsable", "-N2", "-n2", "-o", "far.out", &wrap]);
    let job: u32 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
    wait("both tasks", || far.cluster.text("far.out").matches("ready").count() == 2);
    let said =
        far.run(&["srun", &format!("--jobid={job}"), "--overlap", "-Q", "-N2", "-n2", "true"]);
    assert_eq!(said.code, 0, "{said:?}");
    let look = far
        .command(&["sattach", &format!("{job}.0")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let said = far.run(&["scancel", "-s", "USR1", &format!("{job}.0")]);
    assert_eq!(said.code, 0, "{said:?}");
    let seen = look.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "usr\nusr\n");
    far.cluster.until_written("far.out", "code 4");
    far.cluster.ended(job);
    // An allocation that ends with its command's code, and a file for all of its nodes.
    fs::write(far.cluster.work().join("source"), "x".repeat(100_000)).unwrap();
    let said = far.run(&[
        "salloc",
        "-N2",
        "bash",
        "-c",
        "sbcast source copy && cmp source copy && srun -n2 -N2 -l true; exit 3",
    ]);
    assert_eq!(said.code, 3, "{said:?}");
    let rows = far.cluster.rows(&[]);
    let last = rows.last().expect("some jobs").id.parse().expect("a job's number");
    assert_eq!(far.cluster.outcome(last), ("FAILED".to_owned(), "3:0".to_owned()));
}

#[test]
fn a_step_from_another_host_outlives_the_agents_and_loses_nothing() {
    let far = Elsewhere::start();
    let line = "while read word; do echo $SLURM_PROCID $word; done; exit 3";
    let mut srun = far
        .command(&["srun", "-N2", "-u", "bash", "-c", line])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(far.cluster.work().join("cut.out")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = srun.stdin.take().expect("piped");
    let mut say = |word: &str| std::io::Write::write_all(&mut input, word.as_bytes()).unwrap();
    say("before\n");
    wait("both tasks", || far.cluster.text("cut.out").matches("before").count() == 2);
    far.cluster.crash("n2");
    // Said while one of the agents is away, and comes back on another port.
    say("meanwhile\n");
    far.cluster.up(&[]);
    say("after\n");
    drop(input);
    let out = srun.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    let text = far.cluster.text("cut.out");
    for task in 0..2 {
        let words: Vec<&str> =
            text.lines().filter_map(|l| l.strip_prefix(&format!("{task} "))).collect();
        assert_eq!(words, ["before", "meanwhile", "after"], "task {task} of\n{text}");
    }
}

/// A batch job of this many nodes; its number.
#[track_caller]
fn batch(lab: &Lab, options: &[&str], text: &str) -> u32 {
    let mut words = vec!["sbatch", "--parsable"];
    words.extend(options);
    let wrap = format!("--wrap={text}");
    words.push(&wrap);
    lab.ok("login", &words).parse().unwrap()
}

#[track_caller]
fn until(lab: &Lab, what: &str, words: &[&str], holds: impl Fn(&str) -> bool) {
    let shown = || lab.run("login", words).out;
    wait_or(what, shown, || holds(shown().trim_end()));
}

#[test]
fn hosts_that_share_nothing_but_a_wire_run_steps_and_a_cut_is_told_and_mended() {
    let Some(lab) = Lab::start("hosts of their own") else { return };
    let said =
        lab.run("login", &["srun", "-N3", "-l", "bash", "-c", "echo $(hostname) $SLURMD_NODENAME"]);
    assert_eq!(sorted(&said.out), ["0: n1 n1", "1: n2 n2", "2: n3 n3"], "{said:?}");
    let said = finish_with(lab.command("login", &["srun", "-N2", "-l", "cat"]), b"typed\n");
    assert_eq!(sorted(&said.out), ["0: typed", "1: typed"], "{said:?}");
    signals(&lab);

    // One job goes on without a node, one does not; both have tasks on n3 when it is cut off.
    let task = "echo pid $SLURMD_NODENAME $$; while [ ! -e go ]; do sleep 0.2; done; echo went on";
    let goes_on = batch(
        &lab,
        &["-N3", "-n3", "--no-kill", "-o", "on.out"],
        &format!("srun -k bash -c '{task}'; echo code $?"),
    );
    let plain = batch(
        &lab,
        &["-N2", "-n2", "-w", "n[2-3]", "--requeue", "-o", "plain.%j.out", "--open-mode=append"],
        "srun bash -c 'echo pid $SLURMD_NODENAME $$; exec sleep 300'",
    );
    let plain_out = format!("plain.{plain}.out");
    wait("three tasks", || lab.text("on.out").matches("pid").count() == 3);
    wait("two tasks", || lab.text(&plain_out).matches("pid").count() == 2);
    let text = format!("{}{}", lab.text("on.out"), lab.text(&plain_out));
    let left: Vec<i32> =
        text.lines().filter_map(|l| l.strip_prefix("pid n3 ")?.parse().ok()).collect();
    assert_eq!(left.len(), 2, "{text}");
    let stopped = Stopped::with_much_to_take_in(&lab);
    // One that is watched from outside.
    let mut outside = lab
        .command("login", &["srun", "-N2", "-w", "n[1,3]", "bash", "-c", "echo up; sleep 300"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(lab.work().join("outside.out")).unwrap())
        .stderr(fs::File::create(lab.work().join("outside.err")).unwrap())
        .spawn()
        .unwrap();
    wait("two more tasks", || lab.text("outside.out") == "up\nup\n");
    lab.cut("n3");
    let cut = Instant::now();
    let heard = || lab.text("outside.err");
    wait_or("n3 to be named", heard, || heard().contains("srun: n3 does not answer"));
    let named = cut.elapsed();
    println!("n3 was named {named:?} after the cut");
    assert!(named < Duration::from_secs(15), "{named:?}");
    assert!(!outside.wait().unwrap().success(), "{}", heard());
    assert!(heard().contains("srun: error: Node failure on n3\n"), "{}", heard());
    assert!(cut.elapsed() < Duration::from_secs(45), "{:?}", cut.elapsed());
    until(&lab, "n3 to be down", &["sinfo", "-h", "-n", "n3", "-o", "%t"], |out| {
        out.starts_with("down")
    });
    let state = ["squeue", "-h", "-t", "all", "-j", &plain.to_string(), "-o", "%t"];
    until(&lab, "the requeue", &state, |out| out == "PD");
    let text = lab.text(&plain_out);
    for what in [format!("JOB {plain}"), format!("STEP {plain}.0")] {
        let (begin, end) =
            (format!("*** {what} ON n2 CANCELLED AT 2"), " DUE TO NODE FAILURE, SEE");
        assert!(text.lines().any(|l| l.contains(&begin) && l.contains(end)), "{what}: {text}");
    }
    wait_or(
        "the step to go on without n3",
        || lab.text("on.out"),
        || lab.text("on.out").contains("Node failure on n3"),
    );
    fs::write(lab.work().join("go"), "").unwrap();
    wait_or("its end", || lab.text("on.out"), || lab.text("on.out").contains("code "));
    assert_eq!(lab.text("on.out").matches("went on").count(), 2, "{}", lab.text("on.out"));
    lab.ok("login", &["scancel", &plain.to_string()]);
    let (on, plain) = (goes_on.to_string(), plain.to_string());
    until(&lab, "the end of both", &["squeue", "-h", "-o", "%i"], |out| {
        out.lines().all(|job| job != on && job != plain)
    });

    lab.heal("n3");
    wait("the end of what was left on n3", || !left.iter().any(|pid| lives(*pid)));
    until(&lab, "n3 to be back", &["sinfo", "-h", "-n", "n3", "-o", "%t"], |out| out == "idle");
    let said = lab.run("login", &["srun", "-N3", "hostname"]);
    assert_eq!(sorted(&said.out), ["n1", "n2", "n3"], "{said:?}");
    stopped.goes_on(&lab);
    let row = lab.ok("login", &["sacct", "-X", "-n", "-P", "-j", &on, "-o", "State"]);
    assert_eq!(row, "COMPLETED");
}

/// An srun on another host than its task, stopped as by Ctrl-Z while the task has more to say than
/// all windows hold.
struct Stopped {
    srun: Child,
    since: Instant,
}

impl Stopped {
    const BYTES: usize = 64 << 20;

    fn with_much_to_take_in(lab: &Lab) -> Stopped {
        let line = format!(
            "echo up; sleep 1; head -c {} /dev/zero | tr '\\0' x; echo; exit 7",
            Stopped::BYTES
        );
        let srun = lab
            .command("login", &["srun", "-w", "n2", "bash", "-c", &line])
            .stdin(Stdio::null())
            .stdout(fs::File::create(lab.work().join("stopped.out")).unwrap())
            .stderr(fs::File::create(lab.work().join("stopped.err")).unwrap())
            .spawn()
            .unwrap();
        wait("its task", || lab.text("stopped.out") == "up\n");
        kill(Pid::from_raw(srun.id().cast_signed()), Signal::SIGSTOP).unwrap();
        Stopped { srun, since: Instant::now() }
    }

    /// Longer than a dead asker is waited for, it was not taken for one.
    fn goes_on(mut self, lab: &Lab) {
        std::thread::sleep(Duration::from_secs(50).saturating_sub(self.since.elapsed()));
        kill(Pid::from_raw(self.srun.id().cast_signed()), Signal::SIGCONT).unwrap();
        let code = self.srun.wait().unwrap().code();
        let length = lab.text("stopped.out").len();
        let err = lab.text("stopped.err");
        assert_eq!((code, length), (Some(7), Stopped::BYTES + 4), "{err}");
    }
}

/// Signals of srun's user reach the tasks on other hosts.
fn signals(lab: &Lab) {
    let line = "trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    let child = lab
        .command("login", &["srun", "-N3", "bash", "-c", line])
        .stdin(Stdio::null())
        .stdout(fs::File::create(lab.work().join("signals.out")).unwrap())
        .spawn()
        .unwrap();
    wait("three tasks", || lab.text("signals.out").matches("ready").count() == 3);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(5));
    assert_eq!(lab.text("signals.out").matches("usr").count(), 3);
}
