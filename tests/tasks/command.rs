//! `gaia worker --executors command`: programs of the host, with everything that they begin and leave.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    workers::{Program, task_of},
    world::{DEADLINE, World, document},
};
use crate::support::eventually;

const RUNS: [&str; 2] = ["--executors", "command,echo"];

fn script(text: &str) -> Value {
    json!({"command": {"argv": ["sh", "-c", text]}})
}

async fn world() -> World {
    World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await
}

pub async fn result(world: &World, id: &str) -> Value {
    let (status, result) = world.get(&format!("/api/v1/results/{id}")).await;
    assert_eq!(status, 200, "{result}");
    result["result"].clone()
}

/// Each as `stream text`.
pub async fn log(world: &World, id: &str) -> Vec<String> {
    // It comes by another connection than the result.
    let attempt = eventually("a log", DEADLINE, async || {
        let (_, list) = world.get(&format!("/api/v1/tasks/{id}/logs")).await;
        list["logs"][0]["attempt"].as_str().map(str::to_owned)
    })
    .await;
    let request = world.request(Method::GET, &format!("/api/v1/tasks/{id}/logs/{attempt}"));
    let text = request.send().await.expect("an answer").text().await.expect("a text");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        format!("{} {}", line["stream"].as_str().expect("a stream"), line["text"].as_str().expect("a text"))
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn a_program_prints_leaves_files_and_has_a_result() {
    let world = World::without_redis(&[("ORCHESTRATOR_TOKEN", "t0ken")]).await;
    let mut worker = Program::new("w0");
    worker.variables = vec![("SECRET", "hidden".into()), ("GAIA_TOKEN", "t0ken".into()), ("GIVEN", "given".into())];
    worker.begin(&world.url(), &[&RUNS[..], &["--command-env", "GIVEN"]].concat());
    worker.is_known(&world).await;
    // More than any buffer on the way, and a name that must be quoted.
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).collect();
    let source = world.directory().join("source");
    std::fs::write(&source, &bytes).expect("written");
    let text = r#"
        echo "working in $(ls -A | wc -l) with $GIVEN, ${SECRET:-no secret}, ${GAIA_TOKEN:-no token}, $MINE"
        echo oops >&2
        mkdir out
        cp "$SOURCE" out/final_model.tar.gz
        printf 'a "quoted" text' > "$GAIA_ARTIFACTS/a \"b\".txt"
        mkdir "$GAIA_ARTIFACTS/directory"
        printf '{"loss": 0.5, "of": "%s"}' "$(grep -c '"argv"' "$GAIA_DOCUMENT")" > "$GAIA_RESULT"
        (sleep 3600 &)
        printf 'the end'
    "#;
    let mut first = script(text);
    first["command"]["env"] = json!({"SOURCE": source, "MINE": "mine"});
    first["output"] = json!({"artifacts": ["responses.json", "out/final_model.tar.gz"]});
    let fetch = r#"curl -sf "$URL" | cksum; echo "$LOSS""#;
    let mut second = script(fetch);
    second["command"]["env"] =
        json!({"URL": "${train.result.final_model_archive_url}", "LOSS": "${train.result.value.loss}"});
    let stages = json!([{"name": "train", "spec": first}, {"name": "fetch", "spec": second}]);
    let ids = world.submitted(&document(json!({"taskType": "command", "stages": stages}))).await;
    world.all_done(&ids).await;

    let told = result(&world, &ids[0]).await;
    let printed = "working in 0 with given, no secret, no token, mine\nthe end";
    assert_eq!((&told["stdout"], &told["stderr"], &told["exit_code"]), (&json!(printed), &json!("oops\n"), &json!(0)));
    assert_eq!(told["value"], json!({"loss": 0.5, "of": "1"}));
    let names: Vec<&Value> = told["artifacts"].as_array().expect("a list").iter().map(|file| &file["name"]).collect();
    assert_eq!(names, [&json!("a \"b\".txt"), &json!("final_model.tar.gz")]);
    for (n, expected) in [(0, &b"a \"quoted\" text"[..]), (1, &bytes[..])] {
        let url = told["artifacts"][n]["url"].as_str().expect("a URL");
        let path = url.strip_prefix(&world.url()).expect("of this server");
        let answer = world.request(Method::GET, path).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        assert!(answer.bytes().await.expect("bytes") == expected, "{url}");
    }
    let lines = log(&world, &ids[0]).await;
    for line in ["stdout the end", "stderr oops", "worker directory is not uploaded: it is no plain file"] {
        assert!(lines.iter().any(|told| told == line), "{line}: {lines:?}");
    }
    assert!(
        lines.iter().any(|line| line == "worker processes that it left behind, and that were ended: 1"),
        "{lines:?}"
    );

    // The next stage had the URL and a token for it.
    let sum = std::process::Command::new("cksum").stdin(std::fs::File::open(&source).expect("it is there")).output();
    let sum = String::from_utf8(sum.expect("cksum runs").stdout).expect("a text");
    assert_eq!(result(&world, &ids[1]).await["stdout"], json!(format!("{sum}0.5\n")));
    nothing_is_left(&worker).await;
}

/// No directory of an attempt.
async fn nothing_is_left(worker: &Program) {
    eventually("no attempt has a directory", DEADLINE, async || attempts(worker).is_empty().then_some(())).await;
}

fn attempts(worker: &Program) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(worker.directory()).expect("a directory").flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn what_fails_says_why() {
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0"), ("GAIA_TASKS_MEMORY", "lenient")]).await;
    let _worker = Program::start(&world, "w0", &RUNS).await;
    let limited = json!({"command": {"argv": ["sh", "-c", "echo begun; sleep 3600"], "timeoutSeconds": 1}});
    let missing = json!({"command": {"argv": ["true"]}, "output": {"artifacts": ["out/model"]}});
    let cases = [
        (script("echo one; echo two >&2; exit 3"), "exit code 3; it said last: two"),
        (script("kill -9 $$"), "it was ended by signal 9"),
        (limited, "spec.command.timeoutSeconds: it was stopped after 1 seconds; it said last: begun"),
        (missing, "spec.output.artifacts: out/model: No such file or directory (os error 2)"),
        (
            script("rmdir $GAIA_ARTIFACTS; ln -s /etc $GAIA_ARTIFACTS"),
            "the task's directory \"artifacts\" is none any more",
        ),
        (script("ln -s /etc/passwd $GAIA_RESULT"), "$GAIA_RESULT: it is no plain file"),
        (
            json!({"command": {"argv": ["gaia-no-such-program"]}}),
            "spec.command.argv[0]: cannot run gaia-no-such-program: No such file or directory (os error 2)",
        ),
        (json!({"command": {"argv": "ls"}}), "spec.command.argv: invalid type: string \"ls\", expected a sequence"),
        (
            json!({"command": {"argv": ["ls"], "shell": true}}),
            "spec.command.shell: unknown field `shell`, expected one of `argv`, `env`, `timeoutSeconds`",
        ),
        (json!({}), "spec.command: it is needed for this taskType"),
    ];
    let mut submitted = Vec::new();
    for (spec, told) in cases {
        submitted.push((world.submitted(&task_of("command", spec)).await.remove(0), told));
    }
    for (id, told) in submitted {
        let task = world.status_is(&id, "FAILED").await;
        assert_eq!(task["error"], json!(told));
    }
}

/// A program with children that do not heed SIGTERM, one of them in a session of its own. Their ids are in `pids`.
fn stubborn(pids: &Path) -> Value {
    let text = r#"
        trap '' TERM
        setsid sh -c 'trap "" TERM; echo $$ >> "$PIDS"; sleep 3600' &
        env -i PATH="$PATH" sh -c "trap '' TERM; echo \$\$ >> '$PIDS'; sleep 3600" &
        echo $$ >> "$PIDS"
        while :; do sleep 1; done
    "#;
    let mut spec = script(text);
    spec["command"]["env"] = json!({"PIDS": pids});
    spec
}

async fn all_begun(pids: &Path) -> Vec<u32> {
    eventually("all processes have begun", DEADLINE, async || {
        let text = std::fs::read_to_string(pids).unwrap_or_default();
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 3).then_some(pids)
    })
    .await
}

async fn all_ended(pids: &[u32]) {
    eventually("all processes have ended", DEADLINE, async || pids.iter().all(|pid| !lives(*pid)).then_some(())).await;
}

/// What has ended and is not reaped yet (it may be a child of this container's first process) does not live.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_cancel_ends_everything_that_a_program_began() {
    let world = world().await;
    let worker = Program::start(&world, "w0", &RUNS).await;
    let pids = world.directory().join("pids");
    let ids = world.submitted(&task_of("command", stubborn(&pids))).await;
    let begun = all_begun(&pids).await;
    assert!(begun.iter().all(|pid| lives(*pid)));
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    world.status_is(&ids[0], "CANCELLED").await;
    all_ended(&begun).await;
    let next = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&next).await;
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn the_end_of_a_worker_is_the_end_of_its_programs() {
    let world = world().await;
    let mut worker = Program::start(&world, "w0", &[&RUNS[..], &["--grace", "0"]].concat()).await;
    let pids = world.directory().join("pids");
    let ids = world.submitted(&task_of("command", stubborn(&pids))).await;
    let begun = all_begun(&pids).await;
    worker.terminate();
    assert_eq!(worker.ends().await, Some(0));
    all_ended(&begun).await;
    let task = world.task_is(&ids[0], "it waits for another", |task| task["status"] == "WAITING").await;
    assert_eq!(task["last_failed_worker"], json!("w0"));
    nothing_is_left(&worker).await;
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;

    // Asked twice it does not wait for anything, and leaves no program either.
    std::fs::remove_file(&pids).expect("removed");
    let mut worker = Program::start(&world, "w1", &[&RUNS[..], &["--grace", "3600"]].concat()).await;
    let ids = world.submitted(&task_of("command", stubborn(&pids))).await;
    let begun = all_begun(&pids).await;
    worker.terminate();
    eventually("it has heard it", DEADLINE, async || {
        let (_, worker) = world.get("/workers/w1").await;
        let object = world.object("workers/w1").await;
        (worker["status"] == "DRAINING" || object["status"]["state"] == "Draining").then_some(())
    })
    .await;
    worker.terminate();
    assert_eq!(worker.ends().await, Some(130));
    all_ended(&begun).await;
    world.task_is(&ids[0], "it waits for another", |task| task["status"] == "WAITING").await;
}

#[tokio::test]
async fn what_a_killed_worker_left_is_cleared_away_by_the_next() {
    let world = world().await;
    let mut worker = Program::start(&world, "w0", &RUNS).await;
    let pids = world.directory().join("pids");
    let ids = world.submitted(&task_of("command", stubborn(&pids))).await;
    let begun = all_begun(&pids).await;
    worker.kill();
    assert!(begun.iter().all(|pid| lives(*pid)), "nobody else ends them");
    let left = attempts(&worker);
    assert_eq!(left.len(), 1);
    // Nobody is to begin it once more.
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    worker.begin(&world.url(), &RUNS);
    all_ended(&begun).await;
    eventually("its directory is gone", DEADLINE, async || (!left[0].exists()).then_some(())).await;
    worker.is_known(&world).await;
    let next = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&next).await;
}

#[tokio::test]
async fn a_worker_has_a_directory_of_its_own_that_nobody_else_can_enter() {
    let world = world().await;
    let home = tempfile::tempdir().expect("a directory");
    let mut worker = Program::new("w/0");
    worker.variables.push(("HOME", home.path().to_str().expect("a path").to_owned()));
    worker.begin_at_home(&world.url(), &[]);
    let directory = home.path().join(".local/state/gaia/workers/w_0");
    let mode = eventually("it is made", DEADLINE, async || {
        Some(std::fs::metadata(&directory).ok()?.permissions().mode() & 0o777)
    })
    .await;
    assert_eq!(mode, 0o700);
    eventually("it is used", DEADLINE, async || directory.join("identity").is_file().then_some(())).await;
    // One process at a time.
    let mut second = Program::new("w1");
    second.begin_at_home(&world.url(), &["--directory", directory.to_str().expect("a path")]);
    assert_eq!(second.ends().await, Some(1));
    let open = home.path().join("open");
    std::fs::create_dir(&open).expect("made");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("set");
    second.begin_at_home(&world.url(), &["--directory", open.to_str().expect("a path")]);
    assert_eq!(second.ends().await, Some(1));
}
