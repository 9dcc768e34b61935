//! Programs of MPI, started by srun itself and by their own launchers. An exit code of 0 says
//! nothing here: tasks that do not find each other are worlds of one each. So every story looks at
//! the size of the world, and at a sum that needs all of it.

use std::fs;
use std::process::Command;

use crate::harness::{Cluster, STRANGER, finish, root, wait};

/// Prints its place, and the sum of all ranks.
const WORLD: &str = "#include <mpi.h>\n#include <stdio.h>\n\
    int main(int c, char **v) { int r, n, s; MPI_Init(&c, &v); MPI_Comm_rank(MPI_COMM_WORLD, &r);\n\
    MPI_Comm_size(MPI_COMM_WORLD, &n); MPI_Allreduce(&r, &s, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);\n\
    printf(\"rank %d of %d sum %d\\n\", r, n, s); MPI_Finalize(); return 0; }\n";

/// Rank 1 ends in the way that it is told. The other looks at nothing, so that no library of its own
/// ends it first.
const FAULTY: &str = "#include <mpi.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
    int main(int c, char **v) { int r; if (!strcmp(v[1], \"early\") && getenv(\"SLURM_PROCID\")[0] == '1') return 0;\n\
    MPI_Init(&c, &v); MPI_Comm_rank(MPI_COMM_WORLD, &r); MPI_Barrier(MPI_COMM_WORLD);\n\
    if (r == 1 && !strcmp(v[1], \"abort\")) MPI_Abort(MPI_COMM_WORLD, 7);\n\
    if (r == 1 && !strcmp(v[1], \"exit\")) _exit(5);\n\
    if (r == 1 && !strcmp(v[1], \"kill\")) abort();\n\
    pause(); return 0; }\n";

/// Two nodes of one host must not take each other for one: Open MPI's shared memory is in a folder
/// that they share.
const APART: &str = "export OMPI_MCA_btl=tcp,self\n";

/// An MPI and how srun starts its programs.
#[derive(Clone, Copy)]
struct Mpi {
    compiler: &'static str,
    flag: &'static str,
}

const OPEN_MPI: Mpi = Mpi { compiler: "mpicc.openmpi", flag: "--mpi=pmix" };
const MPICH: Mpi = Mpi { compiler: "mpicc.mpich", flag: "--mpi=pmi2" };

/// Builds a program in the cluster's folder; says what is missing.
fn built(cluster: &Cluster, compiler: &str, name: &str, source: &str, more: &[&str]) -> bool {
    cluster.script(&format!("{name}.c"), source);
    let mut build = Command::new(compiler);
    build.arg(format!("{name}.c")).args(["-o", name]).args(more).current_dir(cluster.work());
    match build.output() {
        Ok(done) if done.status.success() => true,
        Ok(done) => panic!("{compiler}: {}", String::from_utf8_lossy(&done.stderr)),
        Err(_) => {
            println!("skipped: there is no {compiler}");
            false
        }
    }
}

#[track_caller]
fn script(cluster: &Cluster, options: &[&str], text: &str) -> String {
    let file = cluster.script("mpi.sh", &format!("#!/bin/bash\n{text}\n"));
    let mut words = options.to_vec();
    words.extend(["-o", "mpi.out", &file]);
    let job = cluster.submit(&words);
    cluster.ended(job);
    cluster.text("mpi.out")
}

/// Every rank has found all others.
#[track_caller]
fn whole(out: &str, size: u32) {
    let sum = size * (size - 1) / 2;
    for rank in 0..size {
        let line = format!("rank {rank} of {size} sum {sum}");
        assert_eq!(out.matches(&line).count(), 1, "{line:?} in\n{out}");
    }
}

#[test]
fn srun_starts_programs_of_open_mpi_and_mpich_as_one_world() {
    let cluster = Cluster::start();
    for mpi in [MPICH, OPEN_MPI] {
        if !built(&cluster, mpi.compiler, "world", WORLD, &[]) {
            continue;
        }
        let flag = mpi.flag;
        let out = script(
            &cluster,
            &["-N2", "--ntasks-per-node=2"],
            &format!(
                "{APART}echo A; srun {flag} ./world; echo code $?\n\
                 echo B; srun {flag} -N1 -n2 ./world; echo code $?\n\
                 echo C; srun {flag} -m cyclic ./world; echo code $?\n\
                 echo D; srun {flag} -n1 -N1 ./world; echo code $?\n"
            ),
        );
        let part = |from: &str, to: &str| {
            let (_, rest) = out.split_once(&format!("{from}\n")).expect("its mark");
            rest.split_once(&format!("{to}\n")).map_or(rest, |(part, _)| part).to_owned()
        };
        whole(&part("A", "B"), 4);
        whole(&part("B", "C"), 2);
        whole(&part("C", "D"), 4);
        whole(&part("D", "none"), 1);
        assert_eq!(out.matches("code 0").count(), 4, "{flag}: {out}");
    }
}

#[test]
fn components_of_a_job_are_one_world() {
    let cluster = Cluster::with(&["--nodes=3", "--cpus-per-node=4"]);
    let shape = [
        "-w",
        "n1",
        "-N1",
        "-n1",
        "-o",
        "het.out",
        ":",
        "-w",
        "n[2-3]",
        "-N2",
        "--ntasks-per-node=2",
    ];
    for mpi in [MPICH, OPEN_MPI] {
        if !built(&cluster, mpi.compiler, "world", WORLD, &[])
            || !built(&cluster, mpi.compiler, "faulty", FAULTY, &[])
        {
            continue;
        }
        let flag = mpi.flag;
        let line = format!(
            "#!/bin/bash\n{APART}srun --het-group=0,1 {flag} ./world; echo code $?; echo next\n\
             srun {flag} ./world : {flag} -N1 -n2 ./world; echo code $?; echo next\n\
             srun {flag} ./faulty abort : {flag} -n2 -N2 ./faulty abort; echo code $?; echo next\n\
             srun {flag} ./faulty early : {flag} -n2 -N2 ./faulty early; echo code $?; echo next\n\
             srun {flag} ./world : --mpi=none -n1 -N1 ./world; echo code $?; echo next\n\
             srun {flag} ./faulty none : {flag} ./faulty none & sleep 1; \
             scancel $SLURM_JOB_ID+1.4; wait $!; echo code $?\n"
        );
        let file = cluster.script("het.sh", &line);
        let job = cluster.submit(&[&shape[..], &[&file]].concat());
        cluster.ended(job);
        let out = cluster.text("het.out");
        let parts: Vec<&str> = out.split("\nnext\n").collect();
        let [both, fewer, aborted, early, unlike, cancelled] = parts[..] else {
            panic!("{flag}: {out}")
        };
        whole(both, 5);
        whole(fewer, 3);
        assert!(both.contains("code 0") && fewer.contains("code 0"), "{flag}: {out}");
        // The component of rank 0 hears of it too, and has no code of its own to say.
        assert!(aborted.contains("code 7"), "{flag}: {aborted}");
        assert!(early.contains("code 1") && early.contains("task 1 has ended"), "{flag}: {early}");
        assert!(unlike.contains("code 1") && unlike.contains("in the same way"), "{unlike}");
        // One component is cancelled: without it the other would wait for ever.
        assert!(cancelled.contains("code 143"), "{flag}: {cancelled}");
    }
}

#[test]
fn another_users_world_is_as_whole_and_leaves_nothing_behind() {
    if !root("jobs of another user") || !std::path::Path::new("/usr/bin/mpicc.openmpi").exists() {
        println!("skipped: root and mpicc.openmpi are needed");
        return;
    }
    let cluster = Cluster::start();
    assert!(built(&cluster, OPEN_MPI.compiler, "world", WORLD, &[]));
    let program = cluster.work().join("world");
    let program = program.to_str().unwrap();
    let said = cluster.run_as(
        STRANGER,
        &["srun", "-N2", "-n2", "--mpi=pmix", "env", "OMPI_MCA_btl=tcp,self", program],
    );
    assert_eq!(said.code, 0, "{said:?}");
    whole(&said.out, 2);
    let left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("muster-pmix.");
        ours && entry.metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == STRANGER)
    };
    let left = fs::read_dir("/tmp").unwrap().flatten().filter(left).count();
    assert_eq!(left, 0, "directories of hosts that have ended");
}

#[test]
fn a_rank_that_gives_up_or_is_gone_ends_the_step_with_its_code() {
    let cluster = Cluster::start();
    for mpi in [MPICH, OPEN_MPI] {
        if !built(&cluster, mpi.compiler, "faulty", FAULTY, &[]) {
            continue;
        }
        let flag = mpi.flag;
        let each = |way: &str| format!("srun {flag} ./faulty {way}; echo {way} $?\n");
        let ways: String = ["abort", "exit", "kill", "early"].map(each).concat();
        let out = script(&cluster, &["-N2", "-n2"], &format!("{APART}ulimit -c 0\n{ways}"));
        for line in ["abort 7", "exit 5", "kill 134", "early 1"] {
            assert!(out.lines().any(|l| l == line), "{flag}: {line:?} is missing in\n{out}");
        }
        assert!(out.contains("task 1 has aborted the step"), "{flag}: {out}");
        assert!(out.contains("task 1 has ended without leaving MPI"), "{flag}: {out}");
    }
}

#[test]
fn a_world_comes_together_though_its_agents_die_meanwhile() {
    let cluster = Cluster::start();
    for mpi in [MPICH, OPEN_MPI] {
        if !built(&cluster, mpi.compiler, "world", WORLD, &[]) {
            continue;
        }
        // Rank 3 is late: the others wait for it while the agents are away.
        cluster.script(
            "late.sh",
            "echo here\nif [ $SLURM_PROCID = 3 ]; then while [ ! -e go ]; do sleep 0.1; done; fi\n\
             exec ./world\n",
        );
        let line = format!("{APART}srun {} bash late.sh; echo code $?", mpi.flag);
        let file = cluster.script("mpi.sh", &format!("#!/bin/bash\n{line}\n"));
        let job = cluster.submit(&["-N2", "--ntasks-per-node=2", "-o", "late.out", &file]);
        wait("all tasks", || cluster.text("late.out").matches("here").count() == 4);
        cluster.crash("n1");
        cluster.crash("n2");
        cluster.script("go", "");
        cluster.up(&[]);
        cluster.ended(job);
        let out = cluster.text("late.out");
        whole(&out, 4);
        assert!(out.contains("code 0"), "{out}");
        fs::remove_file(cluster.work().join("go")).unwrap();
        fs::remove_file(cluster.work().join("late.out")).unwrap();
    }
}

#[test]
fn the_second_pmi_is_spoken_as_slurms_own_client_does() {
    const PMI2: &str = "#include <slurm/pmi2.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
        int main(void) { int sp, size, rank, app, n, i, sum = 0; char job[64], key[32], value[64];\n\
        if (PMI2_Init(&sp, &size, &rank, &app) || PMI2_Job_GetId(job, sizeof job)) return 9;\n\
        sprintf(key, \"k%d\", rank); sprintf(value, \"%d;%d\", rank, rank);\n\
        if (PMI2_KVS_Put(key, value) || PMI2_KVS_Fence()) return 8;\n\
        for (i = 0; i < size; i++) { sprintf(key, \"k%d\", i);\n\
        if (PMI2_KVS_Get(job, PMI2_ID_NULL, key, value, sizeof value, &n)) return 7; sum += atoi(value); }\n\
        char map[256]; int found; PMI2_Info_GetJobAttr(\"PMI_process_mapping\", map, sizeof map, &found);\n\
        printf(\"rank %d of %d sum %d\\n%s\\n\", rank, size, sum, found ? map : \"none\");\n\
        return PMI2_Finalize(); }\n";
    let header = std::path::Path::new("/usr/include/slurm/pmi2.h");
    if !header.exists() {
        println!("skipped: there is no libpmi2-0-dev");
        return;
    }
    let cluster = Cluster::start();
    assert!(built(&cluster, "cc", "pmi2", PMI2, &["-lpmi2"]));
    let out = script(
        &cluster,
        &["-N2", "--ntasks-per-node=2"],
        "export SLURM_MPI_TYPE=pmi2\nsrun ./pmi2; echo code $?",
    );
    whole(&out, 4);
    assert_eq!(out.matches("(vector,(0,2,2))").count(), 4, "{out}");
    assert!(out.contains("code 0"), "{out}");
}

#[test]
fn launchers_of_mpi_start_their_daemons_through_srun() {
    let cluster = Cluster::start();
    for (compiler, launcher) in [
        (MPICH.compiler, "mpiexec.hydra"),
        (OPEN_MPI.compiler, "mpirun.openmpi --allow-run-as-root"),
    ] {
        if !built(&cluster, compiler, "world", WORLD, &[]) {
            continue;
        }
        let line = format!("{APART}{launcher} ./world; echo code $?");
        let out = script(&cluster, &["-N2", "--ntasks-per-node=2"], &line);
        whole(&out, 4);
        assert!(out.contains("code 0"), "{launcher}: {out}");
    }
}

#[test]
fn mpi4py_sums_over_two_nodes() {
    let mut look = Command::new("/usr/bin/python3");
    look.args(["-c", "import mpi4py"]);
    if !look.output().is_ok_and(|out| out.status.success()) {
        println!("skipped: there is no python3-mpi4py");
        return;
    }
    let cluster = Cluster::start();
    cluster.script(
        "world.py",
        "from mpi4py import MPI\nw = MPI.COMM_WORLD\n\
         print('rank', w.rank, 'of', w.size, 'sum', w.allreduce(w.rank), flush=True)\n",
    );
    let out = script(
        &cluster,
        &["-N2", "--ntasks-per-node=2"],
        &format!("{APART}srun --mpi=pmix /usr/bin/python3 world.py; echo code $?"),
    );
    whole(&out, 4);
    assert!(out.contains("code 0"), "{out}");
}

#[test]
fn what_srun_offers_is_listed_and_what_it_does_not_have_is_named() {
    let cluster = Cluster::edited(&["--nodes=1", "--cpus-per-node=2"], |_, text| {
        let text = match text.contains("[agent]\n") {
            true => text.replace("[agent]\n", "[agent]\npmix_library = \"/nosuch/libpmix.so\"\n"),
            false => format!("{text}\n[agent]\npmix_library = \"/nosuch/libpmix.so\"\n"),
        };
        match text.contains("[scheduler]\n") {
            true => text.replace("[scheduler]\n", "[scheduler]\nmpi_default = \"pmi2\"\n"),
            false => format!("{text}\n[scheduler]\nmpi_default = \"pmi2\"\n"),
        }
    });
    let said = cluster.run(&["srun", "--mpi=list"]);
    assert_eq!(said.code, 0);
    for kind in ["none", "pmi2", "pmix"] {
        assert!(said.err.lines().any(|line| line.trim() == kind), "{kind}: {said:?}");
    }
    let said = cluster.run(&["srun", "--mpi=nosuch", "true"]);
    assert_ne!(said.code, 0);
    let text = "Invalid MPI type 'nosuch', --mpi=list for acceptable types";
    assert!(said.err.contains(text), "{said:?}");
    let said = cluster.run(&["srun", "--mpi=pmix", "true"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("/nosuch/libpmix.so cannot be loaded"), "{said:?}");
    let show = |flag: &str| {
        cluster.run(&["srun", flag, "bash", "-c", "echo $SLURM_MPI_TYPE ${PMI_RANK-none}"]).out
    };
    let both = ["srun", "--mpi=pmix", "true", ":", "--mpi=pmix", "true"];
    let said = cluster.run(&both);
    let text = "node n1 has tasks of two components";
    assert!(said.code == 1 && said.err.contains(text), "{said:?}");
    assert_eq!(show("-Q"), "pmi2 0\n", "as the cluster has it");
    assert_eq!(show("--mpi=none").trim(), "none");
    let config = cluster.ok(&["scontrol", "show", "config"]);
    assert!(config.lines().any(|l| l.starts_with("MpiDefault") && l.ends_with("pmi2")), "{config}");
    let mut command = cluster.command(&[
        "srun",
        "-n2",
        "bash",
        "-c",
        "srun --mpi=none --overlap -n1 printenv PMI_FD; echo $?",
    ]);
    command.env("SLURM_MPI_TYPE", "pmi2");
    assert_eq!(finish(command).out, "1\n1\n", "an inner step is told nothing of the outer one's");
}

#[test]
fn the_example_runs_as_it_is() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/mpi.sh");
    let cluster = Cluster::start();
    if !built(&cluster, OPEN_MPI.compiler, "program", WORLD, &[]) {
        return;
    }
    let text = fs::read_to_string(example).unwrap();
    cluster.script("example.sh", &text);
    let mut command = cluster.command(&["sbatch", "--parsable", "-o", "example.out", "example.sh"]);
    command.env("OMPI_MCA_btl", "tcp,self");
    let job = finish(command).out.trim().parse().unwrap();
    cluster.ended(job);
    whole(&cluster.text("example.out"), 8);
}
