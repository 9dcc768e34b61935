//! Several hosts on one machine: network namespaces with addresses and names of their own, joined by
//! a bridge, each with its own folder of sockets. What runs on one reaches another over the wire or
//! not at all, and a wire can be cut. Only root can make them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Said, finish, processes_of, root, wait_or};

/// The controller's host, three nodes, and a host where users log in.
const HOSTS: [&str; 5] = ["head", "n1", "n2", "n3", "login"];
/// In each host's own network, so that labs do not meet.
const NETWORK: &str = "10.77.0";

/// The hosts and what runs on them.
pub(crate) struct Lab {
    place: tempfile::TempDir,
    tag: String,
    daemons: Mutex<Vec<Child>>,
}

impl Lab {
    /// A cluster of three nodes; `None`, with a word of why, where it cannot be made.
    pub(crate) fn start(what: &str) -> Option<Lab> {
        if !root(what) {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = tempfile::Builder::new().prefix("muster-lab-").tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let tag = format!("mu{}-{number}", std::process::id());
        let lab = Lab { place, tag, daemons: Mutex::default() };
        if let Err(fault) = lab.wire() {
            println!("skipped, no network namespaces: {what}: {fault}");
            return None;
        }
        lab.furnish();
        lab.daemon("head", &["controller"]);
        wait_or("the controller", || lab.log("head"), || lab.socket("head").exists());
        for node in ["n1", "n2", "n3"] {
            lab.daemon(node, &["agent", "--node", node]);
        }
        lab.daemon("login", &["tokens"]);
        let idle = || lab.run("login", &["sinfo", "-h", "-o", "%T %D"]).out;
        wait_or("three idle nodes", idle, || idle() == "idle 3\n");
        Some(lab)
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.tag)
    }

    /// Namespaces, a bridge, and a cable to each.
    fn wire(&self) -> Result<(), String> {
        let hub = self.name("hub");
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for (at, host) in HOSTS.iter().enumerate() {
            let (name, address) = (self.name(host), format!("{NETWORK}.{}/24", at + 1));
            ip(&["netns", "add", &name])?;
            let cable = ["type", "veth", "peer", "name", "eth0", "netns", &name];
            ip(&[&["-n", &hub, "link", "add", host][..], &cable].concat())?;
            ip(&["-n", &hub, "link", "set", host, "master", "br0"])?;
            ip(&["-n", &hub, "link", "set", host, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// The binary, its links, the keys, and one config for all hosts.
    fn furnish(&self) {
        let at = |path: &str| self.place.path().join(path);
        for folder in ["run", "state", "spool", "work", "log", "bin"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for host in HOSTS {
            fs::create_dir_all(at(&format!("hosts/{host}/run"))).unwrap();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_muster"));
        if fs::hard_link(built, at("muster")).is_err() {
            fs::copy(built, at("muster")).unwrap();
        }
        let mut links = Command::new(at("muster"));
        links.arg("links").arg(at("bin"));
        assert_eq!(finish(links).code, 0);
        let names = ["n1", "n2", "n3", "10.77.0.1"].map(str::to_owned);
        let cert = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(at("cert.pem"), cert.cert.pem()).unwrap();
        fs::write(at("key.pem"), cert.signing_key.serialize_pem()).unwrap();
        fs::write(at("cluster.key"), [5u8; 48]).unwrap();
        fs::set_permissions(at("cluster.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let place = self.place.path().display();
        let text = format!(
            "cluster = \"lab\"\nstate_dir = \"{place}/state\"\nrun_dir = \"{place}/run\"\n\
             [controller]\nlisten = \"0.0.0.0:6817\"\naddress = \"{NETWORK}.1:6817\"\n\
             [security]\ncluster_key = \"{place}/cluster.key\"\ntls_cert = \"{place}/cert.pem\"\n\
             tls_key = \"{place}/key.pem\"\ntls_ca = \"{place}/cert.pem\"\nallow_root_jobs = true\n\
             [scheduler]\nheartbeat_seconds = 2\nnode_timeout_seconds = 20\n\
             kill_wait_seconds = 2\nsample_seconds = 5\n\
             [agent]\nspool_dir = \"{place}/spool/%n\"\nnvml_library = \"none\"\n\
             [[node]]\nname = \"n[1-3]\"\naddress = \"{NETWORK}.[2-4]\"\ncpus = 4\nmemory = 2048\n\
             [[partition]]\nname = \"main\"\nnodes = \"ALL\"\ndefault = true\n\
             default_memory_per_cpu = 100\n"
        );
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.place.path().join("muster.toml")
    }

    /// Where commands run on every host: a file system that all of them share.
    pub(crate) fn work(&self) -> PathBuf {
        self.place.path().join("work")
    }

    fn socket(&self, host: &str) -> PathBuf {
        self.place.path().join(format!("hosts/{host}/run/controller.sock"))
    }

    pub(crate) fn log(&self, host: &str) -> String {
        let path = self.place.path().join(format!("log/{host}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.work().join(file)).unwrap_or_default()
    }

    /// A program on a host: in its network, under its name, with its sockets. The mount namespace
    /// keeps the control groups, unlike that of `ip netns exec`.
    pub(crate) fn on(&self, host: &str, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let place = self.place.path();
        let sockets = place.join(format!("hosts/{host}/run"));
        command
            .arg(format!("--net=/run/netns/{}", self.name(host)))
            .args(["unshare", "--mount", "--uts", "--propagation", "private", "/bin/sh", "-c"])
            .arg("echo $0 > /proc/sys/kernel/hostname; mount --bind $1 $2; shift 2; exec \"$@\"")
            .arg(host)
            .args([sockets, place.join("run")])
            .arg(program)
            .current_dir(self.work())
            .env("MUSTER_CONF", self.config())
            .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin", place.join("bin").display()));
        command
    }

    /// A command by its Slurm name, not yet run.
    pub(crate) fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = self.on(host, &self.place.path().join("bin").join(words[0]));
        command.args(&words[1..]);
        command
    }

    pub(crate) fn run(&self, host: &str, words: &[&str]) -> Said {
        finish(self.command(host, words))
    }

    #[track_caller]
    pub(crate) fn ok(&self, host: &str, words: &[&str]) -> String {
        let said = self.run(host, words);
        assert_eq!(said.code, 0, "{words:?}: {}{}", said.out, said.err);
        said.out.trim_end().to_owned()
    }

    fn daemon(&self, host: &str, words: &[&str]) {
        let log = fs::File::create(self.place.path().join(format!("log/{host}.log"))).unwrap();
        let mut command = self.on(host, &self.place.path().join("muster"));
        command.args(words).arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.lock().unwrap().push(command.spawn().unwrap());
    }

    /// Cuts a host off from all others.
    pub(crate) fn cut(&self, host: &str) {
        ip(&["-n", &self.name("hub"), "link", "set", host, "down"]).unwrap();
    }

    /// Mends its cable.
    pub(crate) fn heal(&self, host: &str) {
        ip(&["-n", &self.name("hub"), "link", "set", host, "up"]).unwrap();
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(words).output().map_err(|fault| fault.to_string())?;
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut daemons = std::mem::take(&mut *self.daemons.lock().unwrap());
        if std::thread::panicking() {
            for host in HOSTS {
                println!("--- {host}\n{}", self.log(host));
            }
        }
        if !daemons.is_empty() {
            self.run("head", &["scancel", "-u", "root"]);
            let deadline = Instant::now() + Duration::from_secs(20);
            while !self.run("head", &["squeue", "-h"]).out.is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        for daemon in daemons.iter().rev() {
            let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        for daemon in &mut daemons {
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for pid in processes_of(self.place.path()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for host in HOSTS.iter().chain(&["hub"]) {
            let _ = ip(&["netns", "del", &self.name(host)]);
        }
    }
}
