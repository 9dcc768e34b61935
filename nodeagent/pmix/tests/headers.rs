//! The structs that are declared here, against the library's own headers where these are.

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use muster_pmix::abi;

const HEADERS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pmix2/include",
    "/usr/lib/aarch64-linux-gnu/pmix2/include",
    "/usr/include",
];

#[test]
fn structs_and_numbers_are_as_the_headers_have_them() {
    let Some(headers) = HEADERS.iter().find(|dir| Path::new(dir).join("pmix_server.h").exists())
    else {
        println!("skipped: there are no PMIx headers (libpmix-dev)");
        return;
    };
    let expected: &[(&str, i64)] = &[
        ("sizeof(pmix_proc_t)", size_of::<abi::Proc>() as i64),
        ("offsetof(pmix_proc_t, rank)", offset_of!(abi::Proc, rank) as i64),
        ("sizeof(pmix_value_t)", size_of::<abi::Value>() as i64),
        ("offsetof(pmix_value_t, data)", offset_of!(abi::Value, data) as i64),
        ("sizeof(pmix_info_t)", size_of::<abi::Info>() as i64),
        ("offsetof(pmix_info_t, flags)", offset_of!(abi::Info, flags) as i64),
        ("offsetof(pmix_info_t, value)", offset_of!(abi::Info, value) as i64),
        ("sizeof(pmix_data_array_t)", size_of::<abi::DataArray>() as i64),
        ("offsetof(pmix_data_array_t, size)", offset_of!(abi::DataArray, size) as i64),
        ("offsetof(pmix_data_array_t, array)", offset_of!(abi::DataArray, array) as i64),
        (
            "offsetof(pmix_server_module_t, direct_modex)",
            offset_of!(abi::Module, direct_modex) as i64,
        ),
        ("offsetof(pmix_server_module_t, connect)", offset_of!(abi::Module, connect) as i64),
        ("offsetof(pmix_server_module_t, register_events)", offset_of!(abi::Module, others) as i64),
        ("PMIX_SUCCESS", abi::SUCCESS.into()),
        ("PMIX_ERROR", abi::ERROR.into()),
        ("PMIX_ERR_NOT_FOUND", abi::NOT_FOUND.into()),
        ("PMIX_OPERATION_SUCCEEDED", abi::OPERATION_SUCCEEDED.into()),
        ("PMIX_BOOL", abi::BOOL.into()),
        ("PMIX_STRING", abi::STRING.into()),
        ("PMIX_UINT16", abi::UINT16.into()),
        ("PMIX_UINT32", abi::UINT32.into()),
        ("PMIX_INFO", abi::INFO.into()),
        ("PMIX_DATA_ARRAY", abi::DATA_ARRAY.into()),
        ("PMIX_PROC_RANK", abi::PROC_RANK.into()),
        ("PMIX_RANK_WILDCARD", abi::RANK_WILDCARD.into()),
    ];
    let lines: String = expected
        .iter()
        .map(|(what, _)| format!("printf(\"%lld\\n\", (long long)({what}));\n"))
        .collect();
    let text = format!(
        "#include <pmix_server.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n\
         {lines}_Static_assert(sizeof(pmix_server_module_t) <= {}, \"module\");\n\
         return 0; }}\n",
        size_of::<abi::Module>()
    );
    let place = tempfile::tempdir().unwrap();
    let (source, program) = (place.path().join("sizes.c"), place.path().join("sizes"));
    std::fs::write(&source, text).unwrap();
    let mut build = Command::new("cc");
    build.arg("-I").arg(headers).arg(&source).arg("-o").arg(&program);
    let Ok(built) = build.output() else {
        println!("skipped: there is no C compiler");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let out = Command::new(&program).output().unwrap();
    let found = String::from_utf8(out.stdout).unwrap();
    for ((what, ours), theirs) in expected.iter().zip(found.lines()) {
        assert_eq!(ours.to_string(), theirs, "{what}");
    }
    assert_eq!(found.lines().count(), expected.len());
}
