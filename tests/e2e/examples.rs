//! The scripts of docs/examples, run as they are; doubles stand in for packages too big for a test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{Cluster, finish, root, sorted, wait_or};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Two nodes as the examples want them, whose names resolve, with the doubles and a `python` on the PATH.
fn cluster() -> Option<Cluster> {
    if !root("names for the nodes of a cluster") || !Path::new("/usr/bin/python3").exists() {
        return None;
    }
    let shape = ["--nodes=2", "--cpus-per-node=16", "--mem-per-node=4G", "--gpus-per-node=4"];
    let cluster = Cluster::with(&shape);
    let tools = cluster.work().join("tools");
    fs::create_dir(&tools).unwrap();
    symlink("/usr/bin/python3", tools.join("python")).unwrap();
    for entry in fs::read_dir(format!("{ROOT}/tests/fakes/tools")).unwrap().flatten() {
        symlink(entry.path(), tools.join(entry.file_name())).unwrap();
    }
    Some(cluster)
}

/// Submits an example with these options; its number.
fn submit(cluster: &Cluster, name: &str, options: &[&str]) -> u32 {
    let text = fs::read_to_string(format!("{ROOT}/docs/examples/{name}.sh")).unwrap();
    cluster.script(name, &text);
    let mut words = vec!["sbatch", "--parsable"];
    words.extend(options);
    words.push(name);
    let mut command = cluster.command(&words);
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = cluster.dir().join("bin");
    let tools = cluster.work().join("tools");
    command.env("PATH", format!("{}:{}:{path}", tools.display(), bin.display()));
    let said = finish(command);
    said.out.trim().parse().unwrap_or_else(|_| panic!("{name}: {said:?}"))
}

/// Runs an example to its good end; what it wrote.
fn run(cluster: &Cluster, name: &str) -> String {
    let job = submit(cluster, name, &["-o", "example.out"]);
    let (state, _) = cluster.outcome(job);
    let text = cluster.text("example.out");
    assert_eq!(state, "COMPLETED", "{name}: {text}");
    text
}

#[test]
fn one_gpu_a_sweep_and_many_short_steps() {
    let Some(cluster) = cluster() else { return };
    let train =
        "import os, sys\nprint(os.environ['CUDA_VISIBLE_DEVICES'].count(','), *sys.argv[1:])\n";
    cluster.script("train.py", train);
    assert_eq!(run(&cluster, "single-gpu"), "0\n");

    let job = submit(&cluster, "array", &[]);
    let rows = cluster.ended(job);
    assert!(rows.len() == 16 && rows.iter().all(|row| row.state() == "COMPLETED"), "{rows:?}");
    let mut tried: Vec<String> =
        (0..16).map(|task| cluster.text(&format!("sweep_{job}_{task}.out"))).collect();
    assert_eq!(tried[6], "0 --rate 1e-3 --seed 1\n");
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), 16, "every pair once: {tried:?}");

    fs::create_dir(cluster.work().join("inputs")).unwrap();
    for i in 0..8 {
        cluster.script(&format!("inputs/{i}"), &format!("{i}\n"));
    }
    symlink("/bin/cat", cluster.work().join("work")).unwrap();
    run(&cluster, "steps-in-parallel");
    for i in 0..8 {
        assert_eq!(cluster.text(&format!("inputs/{i}.out")), format!("{i}\n"));
    }
}

#[test]
fn launchers_of_training_start_every_rank_of_two_nodes() {
    let Some(cluster) = cluster() else { return };
    let train = "import os\nline = [os.environ[k] for k in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', \
                 'SLURMD_NODENAME')]\nline += [os.environ.get('MASTER_ADDR', '-')]\n\
                 os.write(1, (' '.join(line) + '\\n').encode())\n";
    cluster.script("train.py", train);
    // torchrun's ranks meet where it said; the others' are told where.
    for (name, head) in [("ddp", "-"), ("accelerate", "n1"), ("deepspeed", "n1")] {
        let line = |rank| format!("{rank} {} 8 n{} {head}", rank % 4, rank / 4 + 1);
        let expected: Vec<String> = (0..8).map(line).collect();
        assert_eq!(sorted(&run(&cluster, name)), expected, "{name}");
    }
}

#[test]
fn ray_has_every_node_when_the_driver_begins() {
    let Some(cluster) = cluster() else { return };
    let driver = "import os, socket\nhost, port = os.environ['RAY_ADDRESS'].split(':')\n\
                  ray = socket.create_connection((host, int(port)))\nray.sendall(b'nodes?')\n\
                  print(ray.recv(100).decode())\n";
    cluster.script("driver.py", driver);
    let text = run(&cluster, "ray");
    assert!(text.lines().any(|line| line == "n1 n2"), "{text}");
}

#[test]
fn the_training_saves_before_the_limit_and_goes_on_afterwards() {
    let Some(cluster) = cluster() else { return };
    let train = "import os, signal, sys, time\nassert sys.argv[1:] == ['--resume', 'checkpoint']\n\
                 def save(*_):\n    open('checkpoint', 'w').write('half')\n    sys.exit(0)\n\
                 if os.path.exists('checkpoint'):\n    print('resumed', open('checkpoint').read())\n    \
                 sys.exit(0)\n\
                 signal.signal(signal.SIGUSR1, save)\nprint('training', flush=True)\ntime.sleep(600)\n";
    cluster.script("train.py", train);
    let job = submit(&cluster, "requeue", &["-o", "example.out"]);
    cluster.until_written("example.out", "training");
    // The signal comes two minutes before the end. A limit of two would send the next start away at once, too.
    cluster.ok(&["scontrol", "update", &format!("JobId={job}"), "TimeLimit=3"]);
    cluster.until_written("example.out", "resumed half");
    assert_eq!(cluster.outcome(job).0, "COMPLETED", "{}", cluster.text("example.out"));
    let text = cluster.text("example.out");
    for start in ["start number 1", "start number 2"] {
        assert!(text.contains(start), "{text}");
    }
}

#[test]
fn jupyter_says_how_to_reach_it_and_is_there() {
    let Some(cluster) = cluster() else { return };
    let job = submit(&cluster, "jupyter", &[]);
    let file = format!("jupyter-{job}.out");
    cluster.until_written(&file, "token=");
    let text = cluster.text(&file);
    let tunnel = text.lines().find_map(|line| line.split_once("ssh -N -L ")).expect(&text).1;
    let mut ends = tunnel.split([' ', ':']);
    let (near, host, port) = (ends.next(), ends.next().unwrap(), ends.next().unwrap());
    assert_eq!(near, Some(port), "{text}");
    assert!(text.contains(&format!("http://localhost:{port}")), "{text}");
    wait_or(
        "the notebook's port",
        || cluster.text(&file),
        || {
            let port = port.parse().unwrap();
            std::net::TcpStream::connect((host, port)).is_ok()
        },
    );
    cluster.ok(&["scancel", &job.to_string()]);
    assert_eq!(cluster.outcome(job).0, "CANCELLED");
}
