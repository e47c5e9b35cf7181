//! Whom the workers run as.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use afcgi_interop::spawn::Spawn;
use tempfile::TempDir;

use super::{answers_at_path, spawn};

/// A folder with a `program` that everybody may run, wherever it was built.
pub(super) fn for_all(program: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(program, folder.path().join("program")).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn ids(spawn: &Spawn) -> Vec<String> {
    let pid = spawn.pids()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter(|line| {
        line.starts_with("Uid:") || line.starts_with("Gid:") || line.starts_with("Groups:")
    });
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// As root it gives up all that it has for the workers: all ids, all groups; the socket belongs to whom it is to belong.
#[tokio::test]
async fn privileges_are_dropped() {
    let flags = [
        "--listen",
        "DIR/app.sock",
        "--workers",
        "1",
        "--user",
        "nobody",
    ];
    if !is_root() {
        let mut command = spawn();
        command.args(["--listen", "127.0.0.1:0", "--user", "nobody", "--", "true"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("only root"), "{said}");
        return;
    }
    let program = for_all(&afcgi_interop::app::afcgitest().display().to_string());
    let program = program.path().join("program").display().to_string();
    let owner = ["--socket-owner", "nobody:nogroup", "--socket-mode", "600"];
    let mut spawn = Spawn::run(spawn(), &[&flags[..], &owner].concat(), &[&program]);
    spawn.logs(&["ready: 1 of 1"], 1).await;
    let nobody = "65534";
    let all = [nobody; 4].join(" ");
    assert_eq!(
        ids(&spawn),
        [
            format!("Uid: {all}"),
            format!("Gid: {all}"),
            format!("Groups: {nobody}")
        ]
    );
    let path = spawn.dir().join("app.sock");
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
    answers_at_path(&path).await.unwrap();
    // The manager is still who it was: it can end them.
    assert!(spawn.process.stop().success());
}

/// A limit is for the workers, with and without privileges; what the manager needs for itself is not theirs.
#[tokio::test]
async fn open_files() {
    let script = "echo limit $(ulimit -Sn) $(ulimit -Hn); exec sleep 1000";
    let program = ["sh", "-c", script];
    let spawn = Spawn::start(&["--workers", "1", "--limit-nofile", "77"], &program).await;
    spawn.logs(&["[1] limit 77 77"], 1).await;
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let spawn = Spawn::start(&["--workers", "1"], &program).await;
    let soft = own
        .current
        .map_or("unlimited".to_owned(), |limit| limit.to_string());
    spawn.logs(&[&format!("[1] limit {soft} ")], 1).await;
}

#[test]
fn bad_arguments() {
    for (arguments, words) in [
        (&["--listen", "127.0.0.1:0"][..], "<PROGRAM>"),
        (&["--user", "no-such-user", "--", "true"], "no such user"),
        (&["--group", "no-such-group", "--", "true"], "no such group"),
        (&["--workers", "0", "--", "true"], "1..=1024"),
        (&["--workers", "1025", "--", "true"], "1..=1024"),
        (&["--listen-each", "/run/app.sock", "--", "true"], "`%d`"),
        (&["--listen", "9000", "--", "true"], "`9000` is no address"),
        (&["--stop-signal", "KILL", "--", "true"], "USR1"),
        (&["--grace", "25h", "--", "true"], "a day at most"),
        (&["--watch-ext", "php", "--", "true"], "--watch"),
        (
            &["--notify", "--settle", "1s", "--", "true"],
            "cannot be used with",
        ),
    ] {
        let output = spawn().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
