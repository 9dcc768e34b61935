//! Clients that speak as MPICH's and Slurm's libraries do, byte for byte.

use super::*;
use muster_proto::v1::NodeRanks;

/// The tasks of the first of these nodes, and the clients' ends.
fn node(ranks: &[&[u32]]) -> (Pmi, Vec<UnixStream>) {
    let node = |tasks: &&[u32]| NodeRanks { node: String::new(), tasks: tasks.to_vec() };
    let layout = Layout { nodes: ranks.iter().map(node).collect(), index: 0 };
    let mut pmi = Pmi::new("7.0".to_owned(), layout).unwrap();
    let clients = std::mem::take(&mut pmi.theirs);
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    (pmi, clients)
}

/// What a client hears after it has said this.
fn talk(pmi: &mut Pmi, clients: &[UnixStream], local: usize, text: &str) -> String {
    (&clients[local]).write_all(text.as_bytes()).unwrap();
    pmi.hear(local);
    heard(clients, local)
}

fn heard(clients: &[UnixStream], local: usize) -> String {
    let mut buffer = [0u8; 4096];
    match (&clients[local]).read(&mut buffer) {
        Ok(length) => String::from_utf8(buffer[..length].to_vec()).unwrap(),
        Err(_) => String::new(),
    }
}

fn frame(text: &str) -> String {
    format!("{:>6}{text}", text.len())
}

#[test]
fn a_client_of_the_first_protocol_finds_its_world() {
    let (mut pmi, clients) = node(&[&[0, 1]]);
    for (said, answer) in [
        (
            "cmd=init pmi_version=1 pmi_subversion=1\n",
            "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n",
        ),
        ("cmd=get_maxes\n", "cmd=maxes rc=0 kvsname_max=256 keylen_max=256 vallen_max=4096\n"),
        ("cmd=get_appnum\n", "cmd=appnum rc=0 appnum=0\n"),
        ("cmd=get_my_kvsname\n", "cmd=my_kvsname rc=0 kvsname=7.0\n"),
        ("cmd=get_universe_size\n", "cmd=universe_size rc=0 size=2\n"),
        (
            "cmd=get kvsname=7.0 key=PMI_process_mapping\n",
            "cmd=get_result rc=0 msg=success value=(vector,(0,1,2))\n",
        ),
        ("cmd=put kvsname=7.0 key=P0 value=tcp://a b\n", "cmd=put_result rc=0 msg=success\n"),
        ("cmd=get kvsname=7.0 key=P0\n", "cmd=get_result rc=0 msg=success value=tcp://a b\n"),
        ("cmd=get kvsname=7.0 key=P9\n", "cmd=get_result rc=-1 msg=key_not_found value=unknown\n"),
        (
            "mcmd=spawn\nnprocs=1\nexecname=x\nendcmd\n",
            "cmd=spawn_result rc=-1 errmsg=not_supported msg=not_supported\n",
        ),
        ("cmd=lookup_name service=x\n", "cmd=lookup_result rc=-1 msg=not_supported\n"),
    ] {
        assert_eq!(talk(&mut pmi, &clients, 0, said), answer);
    }
    assert_eq!(talk(&mut pmi, &clients, 0, "cmd=barrier_in\n"), "", "the other is not in yet");
    assert!(pmi.waits());
    assert_eq!(talk(&mut pmi, &clients, 1, "cmd=barrier_in\n"), "cmd=barrier_out rc=0\n");
    assert_eq!(heard(&clients, 0), "cmd=barrier_out rc=0\n");
    assert_eq!(talk(&mut pmi, &clients, 0, "cmd=finalize\n"), "cmd=finalize_ack rc=0\n");
    talk(&mut pmi, &clients, 1, "cmd=abort exitcode=7\n");
    let news = pmi.news();
    assert!(matches!(news[..2], [News::Joined(0), News::Left(0)]), "{news:?}");
    let News::Aborted(aborted) = &news[2] else { panic!("{news:?}") };
    assert_eq!((aborted.task, aborted.code), (1, Some(7)));
}

#[test]
fn a_client_of_the_second_protocol_is_answered_with_its_own_mark() {
    let (mut pmi, clients) = node(&[&[0, 1]]);
    for local in 0..2 {
        let init = talk(&mut pmi, &clients, local, "cmd=init pmi_version=2 pmi_subversion=0\n");
        assert_eq!(init, "cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=0\n");
    }
    let full = frame("cmd=fullinit;pmijobid=7.0;pmirank=1;threaded=FALSE;");
    let full = talk(&mut pmi, &clients, 1, &full);
    assert!(full.contains("cmd=fullinit-response;rc=0;") && full.contains(";rank=1;size=2;"));
    for (said, answer) in [
        ("cmd=job-getid;", "cmd=job-getid-response;rc=0;jobid=7.0;"),
        ("cmd=kvs-put;key=a;value=x;;y;", "cmd=kvs-put-response;rc=0;"),
        ("cmd=kvs-get;key=a;", "cmd=kvs-get-response;rc=0;found=TRUE;value=x;;y;"),
        ("cmd=kvs-get;key=b;thrid=3;", "cmd=kvs-get-response;thrid=3;rc=0;found=FALSE;"),
        ("cmd=name-publish;name=x;", "cmd=name-publish-response;rc=-1;errmsg=not supported;"),
    ] {
        assert_eq!(talk(&mut pmi, &clients, 1, &frame(said)), frame(answer));
    }
    // An attribute of the node is waited for until a neighbour has put it.
    let ask = frame("cmd=info-getnodeattr;key=k;wait=TRUE;thrid=5;");
    assert_eq!(talk(&mut pmi, &clients, 0, &ask), "");
    talk(&mut pmi, &clients, 1, &frame("cmd=info-putnodeattr;key=k;value=v;"));
    let got = frame("cmd=info-getnodeattr-response;thrid=5;rc=0;found=TRUE;value=v;");
    assert_eq!(heard(&clients, 0), got);
}

#[test]
fn nodes_exchange_what_is_new_and_a_lost_one_fails_the_fence() {
    let (mut pmi, clients) = node(&[&[0], &[1]]);
    talk(&mut pmi, &clients, 0, "cmd=put kvsname=7.0 key=P0 value=here\n");
    assert_eq!(talk(&mut pmi, &clients, 0, "cmd=barrier_in\n"), "");
    let news = pmi.news();
    let [News::Gather(gather)] = &news[..] else { panic!("{news:?}") };
    assert_eq!((gather.round, &gather.nodes[..]), (0, &[0, 1][..]));
    let pair = KeyValue { key: "P1".into(), value: "there".into() };
    let other = KeyValues { pairs: vec![pair] }.encode_to_vec();
    let mut gathered = Gathered {
        group: gather.group.clone(),
        round: 0,
        pieces: vec![gather.piece.clone(), other.into()],
        fault: String::new(),
    };
    pmi.gathered(&gathered);
    assert_eq!(heard(&clients, 0), "cmd=barrier_out rc=0\n");
    pmi.gathered(&gathered);
    assert_eq!(heard(&clients, 0), "", "an answer that comes twice is heard once");
    let found = talk(&mut pmi, &clients, 0, "cmd=get kvsname=7.0 key=P1\n");
    assert!(found.contains("value=there"), "{found}");
    talk(&mut pmi, &clients, 0, "cmd=barrier_in\n");
    gathered.round = 1;
    gathered.fault = "node n2 has no tasks any more".to_owned();
    pmi.gathered(&gathered);
    assert_eq!(heard(&clients, 0), "cmd=barrier_out rc=-1\n");
}

#[test]
fn a_client_cannot_fill_the_shims_memory_or_speak_nonsense() {
    let (mut pmi, clients) = node(&[&[0]]);
    let long = "x".repeat(VALUE + 1);
    let put = talk(&mut pmi, &clients, 0, &format!("cmd=put kvsname=7.0 key=a value={long}\n"));
    assert_eq!(put, "cmd=put_result rc=-1 msg=invalid_value_length\n");
    pmi.put = ROOM - 10;
    let put = talk(&mut pmi, &clients, 0, "cmd=put kvsname=7.0 key=a value=0123456789\n");
    assert_eq!(put, "cmd=put_result rc=-1 msg=no_room\n");
    talk(&mut pmi, &clients, 0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    talk(&mut pmi, &clients, 0, "nonsense");
    assert_eq!(pmi.fds().count(), 0, "it is heard no more");
}
