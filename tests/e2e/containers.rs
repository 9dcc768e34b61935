//! Tasks in a root of their own, by the runtime that the node has.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, STRANGER, root, wait};

/// A root with one program under many names, which the stranger owns; `None` where none can be run.
fn tiny_root(cluster: &Cluster) -> Option<PathBuf> {
    let image = cluster.work().join("image");
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        println!("skipped: there is no busybox-static");
        return None;
    }
    fs::create_dir_all(image.join("bin")).unwrap();
    fs::copy(busybox, image.join("bin/busybox")).unwrap();
    for name in ["sh", "ls", "cat", "id", "pwd", "touch", "mkdir", "sleep"] {
        symlink("busybox", image.join("bin").join(name)).unwrap();
    }
    fs::write(image.join("mark"), "inside\n").unwrap();
    for path in [image.clone(), image.join("bin")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    if nix::unistd::geteuid().is_root() {
        for path in [image.clone(), image.join("bin"), image.join("mark")] {
            chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
        }
    }
    let mut try_it = match nix::unistd::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            let id = STRANGER.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "bwrap"]);
            command
        }
        false => Command::new("bwrap"),
    };
    try_it.arg("--bind").arg(&image).args(["/", "--dev", "/dev", "--proc", "/proc", "/bin/id"]);
    match try_it.output() {
        Ok(out) if out.status.success() => Some(image),
        Ok(out) => {
            let fault = String::from_utf8_lossy(&out.stderr).into_owned();
            println!("skipped: bwrap does not work here: {fault}");
            None
        }
        Err(_) => {
            println!("skipped: there is no bubblewrap");
            None
        }
    }
}

#[test]
fn tasks_of_two_nodes_see_the_image_and_what_was_mounted_and_nothing_else() {
    if !root("tasks of another user") {
        return;
    }
    let cluster = Cluster::start();
    let Some(image) = tiny_root(&cluster) else { return };
    let image = format!("--container-image={}", image.display());
    let data = cluster.work().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from outside\n").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let mounts = format!("--container-mounts={}:/data:ro", data.display());
    let look = "cat /mark /data/file; id -u; ls -d /usr /root 2>/dev/null; \
                touch /data/x 2>/dev/null && echo written; echo $SLURM_PROCID of $SLURM_NTASKS; pwd";
    let said = cluster.run_as(
        STRANGER,
        &[
            "srun",
            "-N2",
            "-n2",
            &image,
            &mounts,
            "--no-container-mount-home",
            "--container-workdir=/data",
            "sh",
            "-c",
            look,
        ],
    );
    assert_eq!(said.code, 0, "{said:?}");
    for line in ["inside", "from outside", "65534", "/data"] {
        assert_eq!(said.out.lines().filter(|l| *l == line).count(), 2, "{line}: {said:?}");
    }
    assert!(said.out.contains("0 of 2") && said.out.contains("1 of 2"), "{said:?}");
    for line in ["written", "/usr", "/root"] {
        assert!(!said.out.lines().any(|l| l == line), "{line}: {said:?}");
    }
    let said = cluster.run_as(STRANGER, &["srun", &image, "sh", "-c", "exit 3"]);
    assert_eq!(said.code, 3, "the code is the command's: {said:?}");
}

#[test]
fn a_batch_script_runs_in_the_image_and_its_end_is_the_jobs() {
    if !root("tasks of another user") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4"]);
    let Some(tree) = tiny_root(&cluster) else { return };
    let (image, work) = (tree.display(), cluster.work());
    chown(&work, Some(STRANGER), Some(STRANGER)).unwrap();
    let script = format!(
        "#!/bin/sh\n#SBATCH --container-image={image} --no-container-mount-home\n\
         #SBATCH --container-mounts={work}:/made/here --container-workdir=/made\n\
         cat /mark; pwd; echo $0 $1 $SLURM_JOB_ID; ls -d /usr; cat here/given\n\
         trap 'echo stopped > here/stopped; exit 3' TERM\n\
         trap 'echo usr >> here/usr' USR1\n\
         [ $1 = stay ] && {{ echo up; while :; do sleep 0.1; done; }}; exit 4\n",
        work = work.display()
    );
    cluster.script("inside.sh", &script);
    cluster.script("given", "given\n");
    let submit = |word: &str, out: &str| {
        let (script, out) = (work.join("inside.sh"), work.join(out));
        let (script, out) = (script.display().to_string(), out.display().to_string());
        let said = cluster.run_as(STRANGER, &["sbatch", "--parsable", "-o", &out, &script, word]);
        said.out.trim().parse::<u32>().unwrap_or_else(|_| panic!("{said:?}"))
    };
    let job = submit("go", "go.out");
    let (state, exit) = cluster.outcome(job);
    let out = cluster.text("go.out");
    assert_eq!((state.as_str(), exit.as_str()), ("FAILED", "4:0"), "{out}");
    let expected = format!("inside\n/made\n/dev/slurm_script go {job}\n");
    assert!(out.starts_with(&expected) && out.contains("given\n"), "{out}");
    assert!(out.contains("/usr: No such file"), "{out}");
    let job = submit("stay", "stay.out");
    cluster.until_written("stay.out", "up");
    for count in 1..=2 {
        cluster.ok(&["scancel", "-b", "--signal=USR1", &job.to_string()]);
        wait("the signal", || cluster.text("usr").matches("usr\n").count() == count);
    }
    cluster.ok(&["scancel", &job.to_string()]);
    assert_eq!(cluster.outcome(job).0, "CANCELLED");
    assert_eq!(cluster.text("stopped"), "stopped\n", "the script hears of its end in there");
    let said = cluster.run(&["sbatch", "--container-image=/nosuch", "--wrap=true", "-o", "no.out"]);
    assert_eq!(said.code, 0, "the image is the node's: {said:?}");
    assert_eq!(cluster.outcome(job + 1), ("FAILED".to_owned(), "1:0".to_owned()));
    let out = cluster.text("no.out");
    assert!(out.contains("container image /nosuch: No such file"), "{out}");
}

#[test]
fn signals_are_for_the_program_and_not_for_what_is_around_it() {
    if !root("tasks of another user") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4"]);
    let Some(tree) = tiny_root(&cluster) else { return };
    let work = cluster.work();
    chown(&work, Some(STRANGER), Some(STRANGER)).unwrap();
    let task = "trap 'echo usr >> /made/here/usr' USR1\ntrap 'echo stopped; exit 3' TERM\n\
                echo up; while :; do sleep 0.1; done\n";
    cluster.script("task.sh", task);
    let line = format!(
        "{}/bin/srun -n2 --container-image={} --container-mounts={work}:/made/here \
         sh /made/here/task.sh; echo code $?",
        cluster.dir().display(),
        tree.display(),
        work = work.display()
    );
    let out = work.join("sig.out").display().to_string();
    let words = ["sbatch", "--parsable", "-n2", "-o", &out, "--wrap", &line];
    let said = cluster.run_as(STRANGER, &words);
    let job = said.out.trim().parse::<u32>().unwrap_or_else(|_| panic!("{said:?}"));
    wait("both tasks", || cluster.text("sig.out").matches("up").count() == 2);
    for count in [2, 4] {
        cluster.ok(&["scancel", "--signal=USR1", &format!("{job}.0")]);
        wait("the signal", || cluster.text("usr").matches("usr\n").count() == count);
    }
    cluster.ok(&["scancel", &format!("{job}.0")]);
    // Of the script, when both have ended.
    cluster.until_written("sig.out", "\ncode 3\n");
    let text = cluster.text("sig.out");
    assert_eq!(text.matches("stopped\n").count(), 2, "{text}");
    cluster.ended(job);
}

#[test]
fn a_squashfs_image_is_unpacked_once_and_nobody_writes_to_it() {
    if !root("tasks of another user") {
        return;
    }
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=4"]);
    let Some(tree) = tiny_root(&cluster) else { return };
    for folder in ["tmp", "data"] {
        fs::create_dir(tree.join(folder)).unwrap();
        chown(tree.join(folder).as_path(), Some(STRANGER), Some(STRANGER)).unwrap();
    }
    let image = cluster.work().join("image.sqsh");
    let mut pack = Command::new("mksquashfs");
    pack.arg(&tree).arg(&image).arg("-quiet");
    if !pack.output().is_ok_and(|out| out.status.success()) {
        println!("skipped: there is no mksquashfs (squashfs-tools)");
        return;
    }
    fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
    let tmp = cluster.work().join("tmp");
    fs::create_dir(&tmp).unwrap();
    chown(&tmp, Some(STRANGER), Some(STRANGER)).unwrap();
    let export = format!("--export=ALL,TMPDIR={}", tmp.display());
    let of_image = format!("--container-image={}", image.display());
    let mounts = format!("--container-mounts={}:/made/here", cluster.work().display());
    let look = "cat /mark; touch /mark2 2>/dev/null && echo written; touch /tmp/x && echo scratch; \
                ls -d /made/here; ls -d /usr 2>/dev/null; true";
    let line = ["srun", "-n4", &export, &of_image, &mounts, "--no-container-mount-home"];
    let run = || cluster.run_as(STRANGER, &[&line[..], &["sh", "-c", look]].concat());
    for _ in 0..2 {
        let said = run();
        assert_eq!(said.code, 0, "{said:?}");
        for word in ["inside", "scratch", "/made/here"] {
            assert_eq!(said.out.lines().filter(|l| *l == word).count(), 4, "{word}: {said:?}");
        }
        assert!(!said.out.contains("written") && !said.out.contains("/usr"), "{said:?}");
    }
    let store = tmp.join(format!("muster-images-{STRANGER}"));
    let unpacked: Vec<_> =
        fs::read_dir(&store).unwrap().flatten().filter(|e| e.path().is_dir()).collect();
    assert_eq!(unpacked.len(), 1, "{unpacked:?}");
    fs::write(&image, "hsqs, and then nothing that it should be").unwrap();
    let said = run();
    assert!(said.code != 0 && said.err.contains("unsquashfs: "), "{said:?}");
    assert!(said.err.contains("image.sqsh"), "{said:?}");
}

#[test]
fn what_is_no_container_is_named() {
    let cluster = Cluster::with(&["--nodes=1", "--cpus-per-node=2"]);
    for (words, text) in [
        (&["srun", "--container-image=docker://x", "true"][..], "images are not fetched"),
        (&["srun", "--container-name=x", "true"], "--container-name is not supported"),
        (&["srun", "--container-mounts=/a:/b", "true"], "needs --container-image"),
        (&["sbatch", "--container-image=docker://x", "--wrap=true"], "images are not fetched"),
        (&["sbatch", "--container-name=x", "--wrap=true"], "--container-name is not supported"),
        (&["sbatch", "--container-readonly", "--wrap=true"], "needs --container-image"),
        (&["salloc", "--container-image=/r", "true"], "belongs to srun"),
    ] {
        let said = cluster.run(words);
        assert!(said.code != 0 && said.err.contains(text), "{words:?}: {said:?}");
    }
    if Path::new("/usr/bin/bwrap").exists() {
        let said = cluster.run(&["srun", "--container-image=/nosuch", "true"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("container image /nosuch: No such file"), "{said:?}");
    }
}
