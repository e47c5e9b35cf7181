//! What workers say, and what is said of them.

use afcgi_interop::process::Signal;
use afcgi_interop::spawn::Spawn;

/// Each line has the number of its worker, whatever it was written to, and however long it is.
#[tokio::test]
async fn lines_have_numbers() {
    let script = "echo one; echo two >&2; printf 'x%.0s' $(seq 20000); echo; printf 'no end'; exec sleep 1000 >/dev/null 2>&1";
    let spawn = Spawn::start(&["--workers", "2"], &["sh", "-c", script]).await;
    for n in 1..=2 {
        for line in ["one", "two", "no end"] {
            spawn.logs(&[&format!("[{n}] {line}")], 1).await;
        }
        spawn.logs(&[&format!("[{n}] xxxx")], 3).await;
    }
    assert!(
        spawn
            .process
            .log()
            .lines()
            .all(|line| line.len() <= 8192 + "[1] ".len())
    );
}

#[tokio::test]
async fn json() {
    let script = "printf 'one \"\\377\"\\n'; exec sleep 1000";
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--log-format",
        "json",
    ];
    let mut spawn = Spawn::run(super::spawn(), &flags, &["sh", "-c", script]);
    spawn.logs(&["ready: "], 1).await;
    assert!(spawn.process.stop().success());
    let mut said = Vec::new();
    for line in spawn.process.log().lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["timestamp"].is_string(), "{line}");
        if object["message"] == "one \"\u{fffd}\"" {
            assert!(object["worker"] == 1 && object["pid"].is_u64(), "{line}");
        }
        said.push(object["message"].clone());
    }
    assert!(
        said.contains(&"one \"\u{fffd}\"".into()) && said.contains(&"stopped".into()),
        "{said:?}"
    );
}

/// One that says more than can be written does not keep the manager from its work, nor the others from being heard.
#[tokio::test]
async fn a_flood() {
    let script = "if [ $AFCGI_WORKER = 1 ]; then exec yes flood; fi; while :; do echo here; sleep 0.05; done";
    let flags = ["--workers", "2", "--grace", "5s"];
    let mut spawn = Spawn::start(&flags, &["sh", "-c", script]).await;
    spawn.logs(&["[2] here"], 3).await;
    let before = spawn.process.resident();
    spawn.logs(&["[2] here"], 6).await;
    let grown = spawn.process.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    spawn.process.signal(Signal::TERM);
    spawn.logs(&["stopped"], 1).await;
    assert!(spawn.process.stop().success());
}

/// Nobody reads what it says: it ends all the same.
#[tokio::test]
async fn stderr_that_nobody_reads() {
    // Its own process writes into a pipe whose reader sleeps.
    let script = "exec 3>&1; { \"$@\" --listen 127.0.0.1:0 --workers 1 -- sh -c 'echo up >DIR/up; exec yes' 2>&1 & echo $! >DIR/pid; wait $!; echo status $? >&3; } | sleep 1000";
    let folder = tempfile::tempdir().unwrap();
    let script = script.replace("DIR", &folder.path().display().to_string());
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script, "sh"])
        .arg(afcgi_interop::app::afcgi())
        .arg("spawn");
    let mut process =
        afcgi_interop::process::Process::start("sh", &command, &folder.path().join("log"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    afcgi_interop::wait::eventually("it is up", afcgi_interop::wait::SOON, || async {
        (read("up") == "up\n" && read("pid").ends_with('\n'))
            .then_some(())
            .ok_or_else(|| read("log"))
    })
    .await;
    let pid = read("pid").trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM)
        .unwrap();
    afcgi_interop::wait::eventually("it ends", afcgi_interop::wait::SOON, || async {
        (read("log").contains("status 0"))
            .then_some(())
            .ok_or_else(|| read("log"))
    })
    .await;
    process.kill_all();
}
