//! What is read, and how what is wrong is named.

use proptest::prelude::*;

use super::*;

fn jobs(text: &str) -> Trace {
    match parse("t", text.as_bytes()) {
        Ok(File::Jobs(trace)) => trace,
        other => panic!("{other:?}"),
    }
}

/// Text that must be refused with these words.
#[track_caller]
fn refused(text: &str, words: &str) {
    let why = parse("log.swf", text.as_bytes()).expect_err(text).to_string();
    assert!(why.contains(words), "{why:?} does not say {words:?}");
}

fn line(id: u32, submit: i64, run: i64, allocated: i64, requested: i64, limit: i64) -> String {
    format!("{id} {submit} -1 {run} {allocated} -1 -1 {requested} {limit} -1 1 9 -1 -1 -1 -1 -1 -1")
}

#[test]
fn an_swf_line_becomes_a_job_by_the_rules() {
    let text = format!(
        "; MaxProcs: 64\n{}\n{}\n{}\n{}\n{}\n",
        line(4, 50, 100, 8, 16, 200),
        // Size from field 5; killed at the limit.
        line(2, 10, 300, 8, -1, 200),
        // No run time, no size, no limit.
        line(5, 60, -1, 8, 8, 200),
        line(6, 60, 10, -1, 0, 200),
        line(7, 60, 10, 8, 8, -1),
    );
    let trace = jobs(&text);
    assert_eq!((trace.dropped, trace.machine.as_ref().map(Machine::cpus)), (3, Some(64)));
    let brief = |j: &Entry| (j.id, j.submit, j.run, j.limit, j.cpus(), j.user);
    let read: Vec<_> = trace.jobs.iter().map(brief).collect();
    assert_eq!(read, [(2, 10, 200, 200, 8, 9), (4, 50, 100, 200, 16, 9)]);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let good = line(1, 0, 10, 1, 1, 20);
    refused("", "log.swf: not a trace: it is empty");
    refused("hello\n", "no format begins with \"hello\"");
    refused(&format!("{good}\n1 2 3\n"), "log.swf, line 2: 3 fields instead of the 18");
    refused(
        &format!("; x\n\n{}\n", good.replace("10", "ten")),
        "line 3: field 4 (run time) is \"ten\"",
    );
    refused(&format!("{}\n", line(8, -5, 10, 1, 1, 20)), "job 8 has the negative submit time -5");
    refused(&format!("{good}\n{good}\n"), "line 2: job 1 stands in line 1 already");
    refused(&line(1, i64::MAX, 10, 1, 1, 20), "beyond");
    refused(&line(1, 0, 10, 1, i64::MAX, 20), "wants 9223372036854775807 processors");
    refused("; MaxProcs: many\n", "line 1: MaxProcs \"many\"");
    refused("; only comments\n", "no usable job");
    refused("job,submit_s,duration_s,gpus,vc,est_syn_s\n1,2\n", "line 2: 2 values under 6 columns");
    refused("job,submit_s,duration_s,gpus,vc,est_syn_s\n1,2,3,-4,a,6\n", "line 2: gpus is -4");
    let latin = b"; MaxProcs: 3\n1 \xff 3\n";
    let why = parse("log.swf", latin).expect_err("not UTF-8").to_string();
    assert_eq!(why, "log.swf, line 2: is not UTF-8");
}

#[test]
fn tables_become_jobs_and_nodes() {
    let trace = jobs("job,submit_s,duration_s,gpus,vc,est_syn_s\n7,5,60,12,a,600\n");
    let job = &trace.jobs[0];
    assert_eq!((job.gpus(), job.wish.nodes, trace.unit), (12, 2, Unit::Gpus));
    let trace = jobs(
        "job,submit_s,run_s,nodes,ppn,mem_per_node_bytes,walltime_s,user,queue,exclusive,property\n\
         3,1,50,2,6,1048577,86400,62,q,1,x86_64:cl_zewura\n",
    );
    let wish = &trace.jobs[0].wish;
    assert_eq!((wish.nodes, wish.tasks, wish.memory_mib, wish.exclusive), (2, 12, 2, true));
    assert_eq!(wish.features, [vec!["zewura".into()]]);
    let trace = jobs(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,\
         deletion_time,scheduled_time\np-0,1500,100,1,460,A|B,LS,Running,5,100,20\n\
         p-1,1500,100,1,460,,LS,Pending,5,,\n",
    );
    let job = &trace.jobs[0];
    assert_eq!((job.cpus(), job.gpus(), job.run, trace.dropped), (2, 1, 80, 1));
    assert_eq!(job.wish.features, [vec!["A".into(), "B".into()]]);
    let nodes = "sn,cpu_milli,memory_mib,gpu,model\na,32000,5,2,T4\nb,32000,5,2,T4\n";
    match parse("n", nodes.as_bytes()) {
        Ok(File::Nodes(machine)) => assert_eq!((machine.cpus(), machine.gpus()), (64, 4)),
        other => panic!("{other:?}"),
    }
}

const HEADERS: &[&str] = &[
    "; MaxProcs: 8",
    "job,submit_s,duration_s,gpus,vc,est_syn_s",
    "sn,cpu_milli,memory_mib,gpu,model",
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,\
     scheduled_time",
    "job,submit_s,run_s,nodes,ppn,mem_per_node_bytes,walltime_s,user,exclusive,property",
    MUSTER_HEADER,
];

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("t", &bytes);
    }

    #[test]
    fn no_table_makes_the_readers_panic(
        header in 0..HEADERS.len(),
        lines in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![
                    any::<i64>().prop_map(|n| n.to_string()),
                    (-2i64..50).prop_map(|n| n.to_string()),
                    "[a-z|:.0-9+-]{0,6}",
                ],
                0..19,
            ),
            0..6,
        ),
    ) {
        let separator = if header == 0 { " " } else { "," };
        let lines: Vec<String> = lines.iter().map(|words| words.join(separator)).collect();
        let _ = parse("t", format!("{}\n{}\n", HEADERS[header], lines.join("\n")).as_bytes());
    }
}
