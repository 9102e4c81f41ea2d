//! Credential plugins (`exec` in a kubeconfig): when they are asked, and what one that hangs costs.

#[path = "common/scripted_api.rs"]
mod scripted_api;
#[path = "common/source_world.rs"]
mod source_world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scripted_api::{Ask, ScriptedApi};
use signpost::source::kube::{self, Identities, Timing};
use signpost::source::status::ErrorReason;
use source_world::*;

/// A plugin that writes down when it is asked, and hangs while the test wants it to. It ends with the test: the file that
/// it waits for goes with the folder.
struct Plugin {
    directory: tempfile::TempDir,
}

impl Plugin {
    /// `status` is what an ExecCredential says under this key.
    fn new(status: &str) -> Plugin {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let script = format!(
            "echo $$ >>{path}/asked
while [ -e {path}/hold ]; do sleep 0.02; done
echo '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{status}}}'
"
        );
        std::fs::write(directory.path().join("plugin"), script).unwrap();
        Plugin { directory }
    }

    fn kubeconfig(&self, api: &ScriptedApi) -> tempfile::NamedTempFile {
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['{}'], interactiveMode: Never}}",
            self.path("plugin").display()
        );
        kubeconfig(&api.kubeconfig("good").replace("token: 'good'", &exec))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn hang(&self, hangs: bool) {
        if hangs {
            std::fs::write(self.path("hold"), "").unwrap()
        } else {
            std::fs::remove_file(self.path("hold")).unwrap()
        }
    }

    /// The processes that it was asked in.
    fn asked(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Those of them that are still at work.
    fn running(&self) -> usize {
        let script = self.path("plugin").display().to_string();
        // A zombie has no command line.
        let is_ours =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains(&script));
        self.asked().iter().filter(|pid| is_ours(pid)).count()
    }
}

const GOOD: &str = r#"{"token":"good"}"#;

/// A hanging plugin is given up after half a second.
fn impatient() -> Timing {
    Timing { plugin: Duration::from_millis(500), small: Duration::from_millis(500), ..timing() }
}

#[tokio::test]
async fn a_plugin_is_asked_by_the_source_and_not_before() {
    let api = api().await;
    let plugin = Plugin::new(GOOD);
    let file = plugin.kubeconfig(&api);
    // A start, and `signpost check`, must not wait for it.
    plugin.hang(true);
    let config = cluster("c1", &file);
    tokio::time::timeout(Duration::from_secs(5), kube::prepare(&config)).await.expect("at once").unwrap();
    assert_eq!((plugin.asked(), api.requests()), (vec![], vec![]));
    plugin.hang(false);

    let mut world = World::start_from(&api, timing(), Arc::default(), |_| {}, file, "c1", 0).await;
    world.until_current().await;
    assert_eq!(plugin.asked().len(), 1, "once for all that the source asks its API");
    let watches = api.count(Ask::Watch(SERVICE));
    world.until("three more watches", |w| w.api.count(Ask::Watch(SERVICE)) > watches + 3).await;
    assert_eq!(plugin.asked().len(), 1, "a token without an end is good until it is refused");
    assert!(ErrorReason::ALL.iter().all(|&reason| world.status.errors(reason) == 0));
    world.stop().await;
}

/// A source whose plugin hangs, and one that has nothing to do with it.
struct Two {
    /// Before its source, which ends after it.
    plugin: Plugin,
    apis: [ScriptedApi; 2],
    hanging: World,
    other: World,
}

impl Two {
    async fn start(plugin: Plugin) -> Two {
        let apis = [api().await, api().await];
        apis[1].set_uid("uid-2");
        let identities = Arc::new(Identities::default());
        let file = plugin.kubeconfig(&apis[0]);
        let hanging = World::start_from(&apis[0], impatient(), identities.clone(), |_| {}, file, "c1", 0).await;
        let file = kubeconfig(&apis[1].kubeconfig("good"));
        let other = World::start_from(&apis[1], impatient(), identities, |_| {}, file, "c2", 1).await;
        Two { plugin, apis, hanging, other }
    }

    /// Changes of the other cluster are followed, and only its plugin's cluster is late.
    async fn only_the_other_goes_on(&mut self, tries: u64) {
        let failures = |w: &World| ErrorReason::ALL.iter().map(|&reason| w.status.errors(reason)).sum::<u64>();
        let before = failures(&self.hanging);
        let end = Instant::now() + PATIENCE;
        let mut n = 0_u8;
        while failures(&self.hanging) < before + tries {
            self.apis[1].put(SERVICE, service("web", &format!("192.0.2.{n}")));
            n = n.wrapping_add(1);
            let since = Instant::now();
            self.other.until_current().await;
            assert!(since.elapsed() < PATIENCE / 10, "the other cluster's change took {:?}", since.elapsed());
            assert!(self.plugin.running() <= 1, "{} plugins at once", self.plugin.running());
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < end, "{} of {tries} failures", failures(&self.hanging) - before);
        }
        assert_eq!(failures(&self.other), 0);
    }

    async fn stop(self) {
        self.hanging.stop().await;
        self.other.stop().await;
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_delays_its_own_source_only() {
    let plugin = Plugin::new(GOOD);
    plugin.hang(true);
    let mut two = Two::start(plugin).await;
    two.only_the_other_goes_on(4).await;
    assert!(two.hanging.known.is_empty(), "nothing was heard of it");
    two.plugin.hang(false);
    two.hanging.until_current().await;
    two.stop().await;
}

/// The same with a plugin that has answered before: its token has an end, and is asked for again.
#[tokio::test]
async fn a_plugin_that_hangs_at_a_renewal_delays_its_own_source_only() {
    let plugin = Plugin::new(r#"{"token":"good","expirationTimestamp":"'$(date -u +%Y-%m-%dT%H:%M:%SZ)'"}"#);
    let mut two = Two::start(plugin).await;
    two.hanging.until_current().await;
    two.plugin.hang(true);
    two.only_the_other_goes_on(6).await;
    assert!(two.hanging.is_current(), "what was heard stays");
    two.apis[0].put(SERVICE, service("web", "192.0.2.77"));
    two.plugin.hang(false);
    two.hanging.until_current().await;
    two.stop().await;
}
