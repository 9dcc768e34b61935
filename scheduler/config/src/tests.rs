//! Config files that are read, and those that are refused and why.

use super::*;

const SMALL: &str = r#"
cluster = "demo"
[[node]]
name = "n[1-4]"
cpus = 64
memory = "256G"
gres = ["gpu:h100:8"]
features = ["ib"]
[[node]]
name = "login"
cpus = 2
memory = 2048
[[partition]]
name = "main"
nodes = "ALL"
default = true
max_time = "7-00:00:00"
[[partition]]
name = "fast"
features = ["ib"]
"#;

#[track_caller]
fn read(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("muster.toml"), text).map_err(|e| e.to_string())
}

/// The fault of `SMALL` with one text replaced by another.
#[track_caller]
fn check(old: &str, new: &str, fault: &str) {
    assert!(SMALL.contains(old), "{old}");
    let said = read(&SMALL.replacen(old, new, 1)).expect_err("the file is faulty");
    assert!(said.contains(fault), "said {said:?}, not {fault:?}");
}

#[test]
fn a_small_file_is_filled_with_defaults() {
    let config = read(SMALL).unwrap();
    assert_eq!(config.nodes.len(), 5);
    assert_eq!(config.nodes[0].capacity.memory_mib, 256 * 1024);
    assert_eq!((config.nodes[0].sockets, config.nodes[0].cores_per_socket), (1, 64));
    assert_eq!(config.partitions[0].nodes.len(), 5);
    assert_eq!(config.partitions[1].nodes.len(), 4, "only nodes with the feature");
    assert_eq!(config.controller.socket, Path::new("/run/muster/controller.sock"));
    assert_eq!(config.history.url, "sqlite:///var/lib/muster/history.db");
    assert_eq!(config.spool_dir("n1"), Path::new("/var/spool/muster/n1"));
    assert_eq!(config.scheduler.min_job_age_seconds, 300);
}

#[test]
fn a_node_may_leave_its_gpus_to_be_found() {
    let found = |gres: &str| {
        let config = read(&SMALL.replacen("[\"gpu:h100:8\"]", gres, 1)).unwrap();
        let node = &config.nodes[0];
        let kinds: Vec<String> = node.capacity.gres.keys().map(ToString::to_string).collect();
        (node.auto_gpus, kinds)
    };
    assert_eq!(found("\"auto\""), (true, vec![]));
    assert_eq!(found("[\"auto\", \"shard:16\"]"), (true, vec!["shard".to_owned()]));
    assert_eq!(found("\"gpu:8\""), (false, vec!["gpu".to_owned()]));
    check("[\"gpu:h100:8\"]", "[\"auto\", \"gpu:8\"]", "auto");
    check("[\"gpu:h100:8\"]", "8", "list");
}

#[test]
fn each_nodes_agent_may_have_a_library_of_its_own() {
    let library =
        |line: &str| read(&format!("{SMALL}\n[agent]\n{line}")).map(|c| c.nvml_library("n7"));
    assert_eq!(library(""), Ok(NvmlLibrary::System));
    assert_eq!(library("nvml_library = \"none\""), Ok(NvmlLibrary::None));
    let path = NvmlLibrary::Path("/x/n7/libnvidia-ml.so".into());
    assert_eq!(library("nvml_library = \"/x/%n/libnvidia-ml.so\""), Ok(path));
    assert!(library("nvml_library = \"x.so\"").is_err());
}

#[test]
fn how_a_pass_chooses_can_be_said() {
    let with = |line: &str| read(&format!("{SMALL}\n[scheduler]\n{line}")).map(|c| c.scheduler);
    let usual = with("").unwrap();
    assert_eq!((usual.order, usual.backfill), (Order::Balanced, Backfill::On));
    assert_eq!((usual.shadows, usual.packing), (Shadows::First(1), Packing::BestFit));
    let other =
        with("order = \"wfp3\"\nbackfill = \"shortest\"\nshadows = \"all\"\npacking = \"spread\"");
    let other = other.unwrap();
    assert_eq!((other.order, other.backfill), (Order::Wfp3, Backfill::Shortest));
    assert_eq!((other.shadows, other.packing), (Shadows::All, Packing::Spread));
    assert_eq!(with("shadows = 4").unwrap().shadows, Shadows::First(4));
    let fault = |line: &str| with(line).expect_err(line);
    let says = |line: &str, text: &str| assert!(fault(line).contains(text), "{}", fault(line));
    says("order = \"prioriti\"", "did you mean \"priority\"?");
    says("backfill = \"short\"", "did you mean \"shortest\"?");
    says("packing = \"bestfit\"", "did you mean \"best-fit\"?");
    says("packing = \"7\"", "use one of best-fit, first-fit, spread, fgd, least-fragments");
    says("shadows = \"many\"", "use a number or \"all\"");
    says("shadows = -1", "use a number from 0 on");
    says("shadows = true", "a number from 0 on, or \"all\"");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    check("cpus = 64", "cpu = 64", "line 5: unknown key \"cpu\"; did you mean \"cpus\"?");
    check("cluster", "xyzzyplugh = 1\ncluster", "line 2: unknown key \"xyzzyplugh\"");
    check("[[node]]", "[scheduler]\nmin_jobage_seconds = 1\n[[node]]", "min_job_age_seconds");
}

#[test]
fn faults_name_their_object() {
    check("\"256G\"", "\"256X\"", "line 6: invalid size \"256X\"");
    check("n[1-4]", "n[1-", "invalid hostlist");
    check("\"login\"", "\"n2\"", "node \"n2\" is configured twice");
    check("gpu:h100:8", "gpu:h100:x", "gres \"gpu:h100:x\"");
    check("nodes = \"ALL\"", "nodes = \"n[1-9]\"", "node \"n5\" is not configured");
    check("7-00:00:00", "soon", "partition \"main\": max_time");
    check("name = \"fast\"", "name = \"main\"", "configured twice");
    check("features = [\"ib\"]\n[[node]]", "sockets = 3\n[[node]]", "is not cpus (64)");
    check("cluster = \"demo\"", "cluster = \"a b\"", "cluster \"a b\"");
    check("cluster = \"demo\"", "cluster = \"demo\"\nstate_dir = \"x\"", "absolute");
    check("[[node]]", "[controller]\nlisten = \"127.0.0.1:0\"\n[[node]]", "tls_cert");
    check("[[node]]", "[history]\nurl = \"mysql://x\"\n[[node]]", "history.url");
}

#[test]
fn tools_find_the_names_that_they_grep_for() {
    let entries = read(SMALL).unwrap().to_entries();
    let find = |name: &str| {
        entries.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default()
    };
    assert_eq!(find("MinJobAge"), "300 sec");
    assert_eq!(find("ClusterName"), "demo");
    assert_eq!(find("MaxArraySize"), "100001");
    assert_eq!(find("GresTypes"), "gpu");
    assert!(!find("ProctrackType").is_empty() && !find("SelectTypeParameters").is_empty());
}

/// The example with its optional keys switched on.
fn whole_example() -> String {
    let text = include_str!("../../../docs/muster.toml.example");
    let optional = |line: &&str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let on = |line: &str| if optional(&line) { line[1..].to_owned() } else { line.to_owned() };
    text.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_valid_with_and_without_its_optional_keys() {
    read(include_str!("../../../docs/muster.toml.example")).expect("the example as it is");
    read(&whole_example()).expect("the example with everything on");
}

#[test]
fn the_example_documents_every_key_and_shows_true_defaults() {
    let whole: toml::Table = whole_example().parse().unwrap();
    let sections = ["controller", "security", "scheduler", "priority", "history", "agent"];
    let blocks = ["node", "partition", "switch", "block"];
    for name in sections.into_iter().chain(blocks) {
        let head = if blocks.contains(&name) { format!("[[{name}]]") } else { format!("[{name}]") };
        // Serde's own refusal lists the keys that the code knows.
        let listed = toml::from_str::<raw::File>(&format!("cluster = 'x'\n{head}\nzzz = 1"))
            .expect_err("zzz is no key");
        let known = listed.message().split('`').skip(3).step_by(2).map(str::to_owned);
        let shown: Vec<&toml::Table> = match &whole[name] {
            toml::Value::Array(list) => list.iter().map(|t| t.as_table().unwrap()).collect(),
            other => vec![other.as_table().unwrap()],
        };
        for key in known {
            assert!(
                shown.iter().any(|t| t.contains_key(&key)),
                "[{name}] {key} is not in docs/muster.toml.example"
            );
        }
    }
    let (plain, full) = (
        read(include_str!("../../../docs/muster.toml.example")).unwrap(),
        read(&whole_example()).unwrap(),
    );
    assert_eq!(plain.scheduler, full.scheduler, "the defaults shown are those in force");
    assert_eq!(plain.priority, full.priority);
    assert_eq!(plain.history, full.history);
}

/// Two leaves below a spine, and a block.
const TREE: &str = r#"
cluster = "demo"
[[node]]
name = "n[1-4]"
cpus = 64
memory = "256G"
[[switch]]
name = "leaf1"
nodes = "n[1-2]"
rails = 8
[[switch]]
name = "leaf2"
nodes = "n[3-4]"
[[switch]]
name = "spine"
switches = "leaf[1-2]"
[[block]]
name = "b1"
nodes = "n[1-2]"
"#;

#[test]
fn a_tree_of_switches_and_blocks_is_read() {
    let topology = read(TREE).unwrap().topology;
    let leaf = &topology.switches[0];
    assert_eq!((&*leaf.name, leaf.nodes.len(), leaf.rails), ("leaf1", 2, 8));
    assert_eq!((&*topology.switches[2].name, topology.switches[2].switches.len()), ("spine", 2));
    assert_eq!((&*topology.blocks[0].name, topology.blocks[0].nodes.len()), ("b1", 2));
    assert!(read(SMALL).unwrap().topology.is_empty());
}

#[test]
fn a_topology_that_is_none_is_refused_by_name() {
    let check = |old: &str, new: &str, fault: &str| {
        assert!(TREE.contains(old), "{old}");
        let said = read(&TREE.replacen(old, new, 1)).expect_err("the file is faulty");
        assert!(said.contains(fault), "said {said:?}, not {fault:?}");
    };
    check("nodes = \"n[3-4]\"", "nodes = \"n3\"", "node \"n4\" is in no switch");
    check("nodes = \"n[3-4]\"", "nodes = \"n[2-4]\"", "node \"n2\" is in two switches");
    check("switches = \"leaf[1-2]\"", "switches = \"leaf[1-3]\"", "\"leaf3\" is not configured");
    check("switches = \"leaf[1-2]\"", "switches = \"spine\"", "loop: spine > spine");
    check("name = \"leaf2\"", "name = \"leaf1\"", "switch \"leaf1\" is configured twice");
    check("rails = 8", "rails = 0", "switch \"leaf1\": rails = 0 must be 1 to 64");
    check("rails = 8", "rail = 8", "did you mean \"rails\"?");
    check("nodes = \"n[3-4]\"", "nodes = \"n[3-\"", "switch \"leaf2\": invalid hostlist");
}

const FAR: &str = r#"
[controller]
address = "head:6817"
[security]
cluster_key = "/etc/key"
tls_cert = "/etc/cert"
tls_key = "/etc/key.pem"
"#;

#[test]
fn agents_listen_where_a_cluster_has_several_hosts() {
    let listen = |more: &str| read(&format!("{SMALL}{more}")).unwrap().agent.listen;
    assert_eq!(listen(""), None);
    assert_eq!(listen(FAR).unwrap().port(), 6818);
    assert_eq!(listen(&format!("{FAR}[agent]\nlisten = \"none\"\n")), None);
    let chosen = listen(&format!("{FAR}[agent]\nlisten = \"127.0.0.1:7000\"\n"));
    assert_eq!(chosen.unwrap().to_string(), "127.0.0.1:7000");
    let said = read(&format!("{SMALL}[agent]\nlisten = \"127.0.0.1:7000\"\n")).unwrap_err();
    assert!(said.contains("agent.listen needs security.tls_cert"), "{said}");
}

#[test]
fn nodes_may_have_addresses_that_are_not_their_names() {
    let named = |address: &str| {
        let cpus = format!("address = \"{address}\"\ncpus = 64");
        read(&SMALL.replacen("cpus = 64", &cpus, 1))
    };
    let config = named("10.0.0.[11-14]").unwrap();
    assert_eq!(config.addresses["n3"], "10.0.0.13");
    assert!(!config.addresses.contains_key("login"));
    let said = named("10.0.0.[11-12]").unwrap_err();
    assert!(said.contains("2 for 4 nodes"), "{said}");
}
