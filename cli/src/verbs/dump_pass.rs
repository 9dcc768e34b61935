//! `muster dump-pass`: has the controller write down its next scheduling pass.

use muster_proto::v1;
use tonic::Response;

use crate::connect::Api;
use crate::exit;

const PROGRAM: &str = "muster dump-pass";

const USAGE: &str = "\
usage: muster dump-pass

Runs a scheduling pass now and writes what it saw and chose to a file on the controller's host; the
path is printed. `muster sim plan FILE` runs it again. For operators.
";

/// The command.
#[must_use]
pub fn dump_pass(args: &[String]) -> i32 {
    match args {
        [] => {}
        [word] if word == "--help" || word == "-h" => {
            exit::print(USAGE);
            return exit::OK;
        }
        _ => {
            eprint!("{USAGE}");
            return exit::FAILED;
        }
    }
    let mut client = match super::open(PROGRAM, "muster_dump_pass") {
        Ok(client) => client,
        Err(code) => return code,
    };
    let reply = client.call(async |mut api: Api| {
        api.admin.dump_pass(v1::DumpPassRequest {}).await.map(Response::into_inner)
    });
    match reply {
        Ok(reply) => {
            exit::print(&format!("{}\n", reply.path));
            exit::OK
        }
        Err(error) => super::failed(PROGRAM, "muster_dump_pass", &error),
    }
}
