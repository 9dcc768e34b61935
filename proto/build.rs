//! Compiles the .proto files with protox, so that no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "muster/v1/common.proto",
        "muster/v1/submit.proto",
        "muster/v1/query.proto",
        "muster/v1/admin.proto",
        "muster/v1/step.proto",
        "muster/agent/v1/session.proto",
        "muster/shim/v1/shim.proto",
        "muster/store/v1/record.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let set = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
