//! Outlive with credentials files, over a nats-server that knows nobody but its operator.

use crate::signed::{account, credentials, operator};
use crate::world::{Running, World, listens, private, spawn_nats_with};
use nkeys::KeyPair;
use outlive_schemas::id::Namespace;
use outlive_schemas::permission::Who;
use std::fs;
use std::path::Path;

/// The keys behind what the server is told.
struct Authority {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

impl Authority {
    fn new() -> Authority {
        let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        Authority { operator, system, account }
    }

    /// A server that has the accounts from its own configuration.
    fn spawn(&self, dir: &Path, port: u16, revoked: &[String]) -> Running {
        let (system, ours) = (self.system.public_key(), self.account.public_key());
        let text = format!(
            "server_name: nats-a\nserver_tags: [\"az:a\"]\nlisten: \"127.0.0.1:{port}\"\n\
             ping_interval: \"2s\"\nping_max: 2\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {:?}, sync_interval: always, unique_tag: \"az:\" }}\n\
             operator: {:?}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{\n  {system}: {:?}\n  {ours}: {:?}\n}}\n",
            dir.join("jetstream").display().to_string(),
            operator(&self.operator),
            account(&self.operator, &self.system, "SYS", false, &[]),
            account(&self.operator, &self.account, "OUTLIVE", true, revoked),
        );
        let conf = dir.join("operated.conf");
        private(&conf, &text);
        spawn_nats_with(&conf, dir, [])
    }
}

/// The kinds of users, as their files are called.
fn users() -> [(&'static str, Who); 4] {
    let team = Who::Namespace(Namespace::new("team-a").expect("a name"));
    [("scheduler", Who::Scheduler), ("executor", Who::Executor), ("operator", Who::Operator), ("team-a", team)]
}

fn configure(world: &World) {
    let shared = world.shared("operated", "");
    for (name, who) in users() {
        let creds = world.file(&format!("{name}.creds"));
        let nats = format!(
            "[nats]\nservers = [{:?}]\ninbox_prefix = {:?}\ncreds_file = {creds}\n",
            world.nats,
            who.inbox_prefix()
        );
        let rest = match who {
            Who::Scheduler => format!("{shared}[scheduler]\nname = \"scheduler-a\"\n"),
            Who::Executor => {
                format!("{shared}[executor]\nname = \"executor-a-1\"\ndata_dir = {}\n", world.file("executor"))
            }
            Who::Operator | Who::Namespace(_) => String::new(),
        };
        private(&world.path(&format!("{name}.toml")), &format!("{nats}{rest}"));
    }
}

/// Runs a job that writes this, and gives its result.
async fn result_of(world: &World, name: &str) -> serde_json::Value {
    let script = format!("echo {name} > $OUTLIVE_RESULT");
    let submit =
        ["-n", "team-a", "--request-timeout", "90s", "job", "submit", "--name", name, "--", "sh", "-c", &script];
    let submitted = world.outlive("team-a.toml", &submit).await;
    let logs = || format!("---- scheduler\n{}\n---- executor\n{}", world.log("scheduler"), world.log("executor"));
    assert_eq!(submitted.code, Some(0), "{}\n{}", submitted.err, logs());
    let waited = world.outlive("team-a.toml", &["--output", "json", "job", "wait", name, "--timeout", "100s"]).await;
    assert_eq!(waited.code, Some(0), "{}\n{}", waited.err, logs());
    waited.json()["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_with_credentials_files_and_says_which_are_refused() {
    let authority = Authority::new();
    let mut world = World::with_nats("nats", |dir, port| authority.spawn(dir, port, &[])).await;
    configure(&world);
    let mut keys = Vec::new();
    for (name, who) in users() {
        let (file, key) = credentials(&authority.account, &who, name);
        private(&world.path(&format!("{name}.creds")), &file);
        keys.push(key);
    }
    let _scheduler = world.role("scheduler");
    let _executor = world.role("executor");
    assert_eq!(result_of(&world, "first").await, "first\n");
    let status = world.outlive("operator.toml", &["--output", "json", "status"]).await.expect_ok("status").json();
    assert_eq!(status["cluster"], "operated");
    // By the flag as by the configuration.
    private(
        &world.path("bare.toml"),
        &format!("[nats]\nservers = [{:?}]\ninbox_prefix = \"_INBOX.ns.team-a\"\n", world.nats),
    );
    let creds = world.path("team-a.creds").display().to_string();
    world.outlive("bare.toml", &["--creds", &creds, "job", "get", "first"]).await.expect_ok("job get --creds");

    // Nobody is let in without; nor with the word of another operator's account, nor with that of a stranger who calls
    // the account's users his own.
    let team = &users()[3].1;
    let (other, _) = credentials(&Authority::new().account, team, "team-a");
    let (ours, _) = credentials(&authority.account, team, "team-a");
    let (theirs, _) = credentials(&authority.account, team, "other");
    let seed = theirs.split_once("-----BEGIN USER NKEY SEED-----").expect("a seed").1;
    let jwt = ours.split_once("-----BEGIN USER NKEY SEED-----").expect("a JWT").0;
    let forged = format!("{jwt}-----BEGIN USER NKEY SEED-----{seed}");
    let wrong = world.path("wrong.creds");
    let creds = wrong.display().to_string();
    let denied = world.outlive("bare.toml", &["job", "list"]).await;
    assert!(denied.code == Some(5) && denied.err.contains("refused the credentials"), "{denied:?}");
    for (what, text) in [("another operator's", other), ("another user's key", forged)] {
        private(&wrong, &text);
        let denied = world.outlive("bare.toml", &["--creds", &creds, "job", "list"]).await;
        assert_eq!(denied.code, Some(5), "{what}: {denied:?}");
        assert!(denied.err.contains("refused the credentials") && denied.err.contains("--creds"), "{what}: {denied:?}");
        let role = world.outlive("scheduler.toml", &["--creds", &creds, "scheduler"]).await;
        assert!(role.code.is_some_and(|code| code != 0), "{what}: {role:?}");
        assert!(role.err.contains("refused our credentials") && role.err.contains("creds_file"), "{what}: {role:?}");
    }
    // What is no such file is told by the setting and the path before anybody is asked.
    private(&wrong, "no credentials\n");
    for missing in [creds, world.path("nowhere.creds").display().to_string()] {
        let refused = world.outlive("bare.toml", &["--creds", &missing, "job", "list"]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains("nats.creds_file") && refused.err.contains(&missing), "{refused:?}");
    }

    // Credentials are rotated under running roles: the new ones are put in place, and the server hears that the old
    // count no more.
    for (name, who) in &users()[..2] {
        let (file, _) = credentials(&authority.account, who, &format!("{name}-2"));
        let next = world.path("next.creds");
        private(&next, &file);
        fs::rename(next, world.path(&format!("{name}.creds"))).expect("replaced");
    }
    let port = world.nats.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    world.servers.remove(0).kill();
    let dir = world.path("");
    world.servers.insert(0, authority.spawn(&dir, port, &keys[..2]));
    listens(port).await;
    assert_eq!(result_of(&world, "second").await, "second\n");
}
