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
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
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
    let blocks = ["node", "partition"];
    for name in sections.into_iter().chain(blocks) {
        let head = if blocks.contains(&name) { format!("[[{name}]]") } else { format!("[{name}]") };
        // Serde's own refusal lists the keys that the code knows.
        let listed = toml::from_str::<raw::File>(&format!("cluster = 'x'\n{head}\nzzz = 1"))
            .expect_err("zzz is no key");
        let known = listed.message().split('`').skip(3).step_by(2).map(str::to_owned);
        let shown = match &whole[name] {
            toml::Value::Array(list) => list[0].as_table().unwrap(),
            other => other.as_table().unwrap(),
        };
        for key in known {
            assert!(shown.contains_key(&key), "[{name}] {key} is not in docs/muster.toml.example");
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
