//! Real Kubernetes clusters: etcd, kube-apiserver, kube-controller-manager, and kwok for nodes and pods.

use std::env;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, Run, command_in};
use super::{free_port, local, try_wait_for, wait_for};

/// Longest start of an API server: 4 s on an idle machine.
const START: Duration = Duration::from_secs(60);
/// Starts tried, each with other ports.
const ATTEMPTS: usize = 5;
/// The node that a pod template has to name, as there is no scheduler.
pub const NODE: &str = "node-0";

/// Whose credentials a kubeconfig carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Admin,
    /// What Signpost needs and no more; by the ClusterRoleBinding `reader`, which a test may delete.
    Reader,
    /// What an instance needs that votes for this cluster, and no more.
    Voter,
    /// Known, and allowed nothing.
    Stranger,
}

impl User {
    const ALL: [User; 4] = [User::Admin, User::Reader, User::Voter, User::Stranger];

    fn name(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::Reader => "reader",
            User::Voter => "voter",
            User::Stranger => "stranger",
        }
    }

    fn group(self) -> &'static str {
        match self {
            User::Admin => "system:masters",
            User::Reader | User::Voter | User::Stranger => "members",
        }
    }
}

/// What runs besides etcd and the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    /// Nothing: an object changes only when the test changes it.
    None,
    /// Deployments, ReplicationControllers, EndpointSlices, namespaces, garbage collection and the tokens of service
    /// accounts; pods that become ready.
    All,
}

/// A running cluster. The fields are in the order in which they end.
pub struct Cluster {
    pub name: String,
    controllers: Mutex<Vec<Process>>,
    api: Mutex<Process>,
    _etcd: Process,
    programs: Programs,
    pub address: SocketAddr,
    etcd_port: u16,
    /// The API server has been stopped or killed since the controllers started.
    disturbed: AtomicBool,
    directory: TempDir,
}

impl Cluster {
    pub fn start(name: &str) -> Cluster {
        Cluster::start_with(name, Controllers::All)
    }

    pub fn start_with(name: &str, controllers: Controllers) -> Cluster {
        let programs = Programs::find().unwrap_or_else(|missing| panic!("{missing}"));
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Cluster::try_start(name, controllers, programs.clone()) {
                Ok(cluster) => return cluster,
                Err(error) => last = error,
            }
        }
        panic!("cluster {name} did not start in {ATTEMPTS} attempts; the last: {last}");
    }

    /// All at once: a start is mostly waiting.
    pub fn start_all(names: &[&str]) -> Vec<Cluster> {
        thread::scope(|scope| {
            let starts: Vec<_> = names.iter().map(|name| scope.spawn(move || Cluster::start(name))).collect();
            starts.into_iter().map(|s| s.join().expect("the reason is in the panic above")).collect()
        })
    }

    fn try_start(name: &str, controllers: Controllers, programs: Programs) -> Result<Cluster, String> {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let (etcd_port, api_port) = (free_port(), free_port());
        write_credentials(directory.path(), name, api_port);
        let etcd = start_etcd(&programs, directory.path(), etcd_port);
        let api = start_api(&programs, directory.path(), etcd_port, api_port);
        let cluster = Cluster {
            name: name.to_string(),
            controllers: Mutex::default(),
            api: Mutex::new(api),
            _etcd: etcd,
            programs,
            address: local(api_port),
            etcd_port,
            disturbed: AtomicBool::new(false),
            directory,
        };
        try_wait_for(START, || cluster.ready())??;
        cluster.apply(READER_RIGHTS);
        if controllers == Controllers::All {
            cluster.apply(&node_manifest());
            cluster.start_controllers();
        }
        Ok(cluster)
    }

    /// An error that cannot be waited away comes out as a value, so that the next attempt starts at once.
    fn ready(&self) -> Result<Result<(), String>, String> {
        if let Err(ended) = self.running() {
            return Ok(Err(ended));
        }
        TcpStream::connect(self.address).map_err(|e| e.to_string())?;
        self.try_kubectl(&["get", "--raw=/readyz"]).map(|_| Ok(()))
    }

    fn running(&self) -> Result<(), String> {
        self._etcd.check()?;
        self.api().check()
    }

    /// Where etcd speaks its own protocol and the JSON form of it.
    pub fn etcd_address(&self) -> SocketAddr {
        local(self.etcd_port)
    }

    /// The process ids of the API server and of etcd.
    pub fn processes(&self) -> [u32; 2] {
        [self.api().id(), self._etcd.id()]
    }

    /// The kubeconfig that Signpost is to use.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(User::Reader)
    }

    pub fn kubeconfig_of(&self, user: User) -> PathBuf {
        kubeconfig_path(self.directory.path(), user)
    }

    /// A kubeconfig that names no file: all is in it.
    pub fn kubeconfig_text(&self, user: User) -> String {
        let authority = fs::read(self.directory.path().join("certificates/apiserver.crt")).expect("it has started");
        let authority = serde_json::to_value(k8s_openapi::ByteString(authority)).expect("base64");
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": authority,
            }}],
            "users": [{"name": "u", "user": {"token": token(user)}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        text.to_string()
    }

    /// The same, but to an address that is not the API server's own, such as a proxy's.
    pub fn kubeconfig_through(&self, address: SocketAddr) -> PathBuf {
        self.kubeconfig_through_as(address, User::Reader)
    }

    pub fn kubeconfig_through_as(&self, address: SocketAddr, user: User) -> PathBuf {
        let path = self.directory.path().join(format!("{}-through-{}.kubeconfig", user.name(), address.port()));
        write_kubeconfig(&path, self.directory.path(), &self.name, address, user);
        path
    }

    /// Runs kubectl as admin; what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|e| panic!("cluster {}: {e}", self.name))
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_as(User::Admin, arguments)
    }

    pub fn kubectl_as(&self, user: User, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with(user, arguments, "")
    }

    /// Any number of YAML documents.
    pub fn apply(&self, manifests: &str) {
        self.try_apply(manifests).unwrap_or_else(|e| panic!("cluster {}: {e}\n{manifests}", self.name));
    }

    pub fn try_apply(&self, manifests: &str) -> Result<(), String> {
        self.kubectl_with(User::Admin, &["apply", "--filename=-"], manifests).map(drop)
    }

    fn kubectl_with(&self, user: User, arguments: &[&str], input: &str) -> Result<String, String> {
        let directory = self.directory.path();
        let mut command: Command = command_in(None, &self.programs.kubectl, arguments);
        command.arg("--kubeconfig").arg(self.kubeconfig_of(user));
        command.arg("--cache-dir").arg(directory.join("kubectl-cache")).arg("--request-timeout=30s");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("kubectl cannot be run: {e}"))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // kubectl reads all its input before it prints; one that does not read it fails and says why.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    /// Runs a script of the project's as an administrator would, with this cluster's context as the current one; what it
    /// prints.
    pub fn script(&self, script: &str, arguments: &[&str]) -> Result<String, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        // kubectl has a folder only where the machine has none of its own.
        let folder = self.programs.kubectl.parent().filter(|f| !f.as_os_str().is_empty()).map(Path::to_path_buf);
        let inherited = env::var_os("PATH").unwrap_or_default();
        let search =
            env::join_paths(folder.into_iter().chain(env::split_paths(&inherited))).map_err(|e| e.to_string())?;
        let output = command_in(None, &path, arguments)
            .env("KUBECONFIG", self.kubeconfig_of(User::Admin))
            .env("PATH", search)
            .output()
            .map_err(|e| format!("{script} cannot be run: {e}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    /// What a cloud does for a Service of type LoadBalancer.
    pub fn set_ingress(&self, namespace: &str, service: &str, addresses: &[&str]) {
        let ingress: Vec<String> = addresses.iter().map(|a| format!(r#"{{"ip":"{a}"}}"#)).collect();
        let patch = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{}]}}}}}}"#, ingress.join(","));
        self.kubectl(&[
            "-n",
            namespace,
            "patch",
            "service",
            service,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    /// All that the test users may do, once more.
    pub fn restore_rights(&self) {
        self.apply(READER_RIGHTS);
    }

    pub fn scale(&self, namespace: &str, deployment: &str, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        self.kubectl(&["-n", namespace, "scale", "deployment", deployment, &replicas]);
    }

    /// Addresses of the ready endpoints in a service's EndpointSlices.
    pub fn ready_endpoints(&self, namespace: &str, service: &str) -> Result<Vec<String>, String> {
        let label = format!("kubernetes.io/service-name={service}");
        let printed = self.try_kubectl(&["-n", namespace, "get", "endpointslices", "-l", &label, "-o", "json"])?;
        let list: serde_json::Value = serde_json::from_str(&printed).map_err(|e| e.to_string())?;
        // A slice without endpoints has `endpoints: null`.
        let items = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let endpoints = items(&list["items"]).into_iter().flat_map(|slice| items(&slice["endpoints"]));
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        Ok(ready.flat_map(|e| items(&e["addresses"])).filter_map(|a| Some(a.as_str()?.to_string())).collect())
    }

    /// SIGSTOP: connections stay open, nothing is said any more.
    pub fn pause(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
        self.api().signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.api().signal(Signal::CONT);
    }

    /// Kills the API server; etcd keeps what it had stored.
    pub fn kill(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
        self.api().kill();
    }

    /// A new API server on the same address, over the same etcd; returns when it is ready.
    pub fn restart(&self) {
        self.kill();
        wait_for(&format!("the API of cluster {} again", self.name), START, || {
            // A program that used the port meanwhile as an ephemeral one makes a start fail; so it is tried again.
            if self.api().ended().is_some() {
                *self.api() = start_api(&self.programs, self.directory.path(), self.etcd_port, self.address.port());
            }
            self.ready().and_then(|outcome| outcome)
        });
    }

    /// Undoes what another test has left: an API server that is stopped or dead, and controllers that wait up to a
    /// minute before they try it again.
    pub fn repair(&self) {
        if self.api().ended().is_some() {
            self.restart();
        } else {
            self.resume();
        }
        if self.disturbed.swap(false, Ordering::Relaxed) {
            self.start_controllers();
        }
    }

    /// Starts the controllers anew: one that lost its API, or met it too early, may have given up.
    pub fn start_controllers(&self) {
        let mut controllers = self.controllers.lock().unwrap_or_else(PoisonError::into_inner);
        // The old ones go first: two at once would work against each other.
        controllers.clear();
        *controllers = start_controllers(&self.programs, self.directory.path());
    }

    fn api(&self) -> MutexGuard<'_, Process> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_etcd(programs: &Programs, directory: &Path, port: u16) -> Process {
    let url = format!("http://{}", local(port));
    let arguments = vec![
        "--data-dir=etcd".to_string(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        // It has no peers, so nobody has to know this port.
        "--listen-peer-urls=http://127.0.0.1:0".to_string(),
        // A test's data need not outlive the machine.
        "--unsafe-no-fsync".to_string(),
        "--log-level=warn".to_string(),
    ];
    Process::start(Run { name: "etcd", program: &programs.etcd, arguments, directory, namespace: None })
}

fn start_api(programs: &Programs, directory: &Path, etcd_port: u16, port: u16) -> Process {
    let arguments = vec![
        format!("--etcd-servers=http://{}", local(etcd_port)),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_string(),
        "--cert-dir=certificates".to_string(),
        "--service-account-issuer=https://kubernetes.default.svc".to_string(),
        "--service-account-key-file=service-accounts.pem".to_string(),
        "--service-account-signing-key-file=service-accounts.pem".to_string(),
        "--token-auth-file=tokens.csv".to_string(),
        "--authorization-mode=RBAC".to_string(),
        "--service-cluster-ip-range=10.96.0.0/12".to_string(),
        // No controller makes service accounts here, and without them it would refuse every pod.
        "--disable-admission-plugins=ServiceAccount".to_string(),
        "--shutdown-delay-duration=0".to_string(),
    ];
    Process::start(Run { name: "kube-apiserver", program: &programs.api, arguments, directory, namespace: None })
}

fn start_controllers(programs: &Programs, directory: &Path) -> Vec<Process> {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig_path(directory, User::Admin).display());
    let manager = vec![
        kubeconfig.clone(),
        "--leader-elect=false".to_string(),
        // It serves nothing.
        "--secure-port=0".to_string(),
        "--controllers=endpointslice-controller,deployment-controller,replicaset-controller,\
         replicationcontroller-controller,namespace-controller,garbage-collector-controller,\
         serviceaccount-token-controller"
            .to_string(),
        "--service-account-private-key-file=service-accounts.pem".to_string(),
        // What the secret of a service account's token gives as `ca.crt`.
        "--root-ca-file=certificates/apiserver.crt".to_string(),
    ];
    let mut kwok = vec![kubeconfig, "--manage-all-nodes=true".to_string()];
    kwok.extend(programs.stages().iter().map(|stage| format!("--config={}", stage.display())));
    let start = |name, program, arguments| Process::start(Run { name, program, arguments, directory, namespace: None });
    vec![start("kube-controller-manager", &programs.manager, manager), start("kwok", &programs.kwok, kwok)]
}

fn kubeconfig_path(directory: &Path, user: User) -> PathBuf {
    directory.join(format!("{}.kubeconfig", user.name()))
}

fn token(user: User) -> String {
    format!("{}-token", user.name())
}

fn write_credentials(directory: &Path, name: &str, port: u16) {
    let key = directory.join("service-accounts.pem");
    let made =
        Command::new("openssl").args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(key).output();
    assert!(made.is_ok_and(|o| o.status.success()), "openssl cannot make a key (package openssl)");
    let tokens: Vec<String> =
        User::ALL.iter().map(|&u| format!("{},{1},{1},{2}\n", token(u), u.name(), u.group())).collect();
    fs::write(directory.join("tokens.csv"), tokens.concat()).expect("the cluster's folder can be written");
    for user in User::ALL {
        write_kubeconfig(&kubeconfig_path(directory, user), directory, name, local(port), user);
    }
}

fn write_kubeconfig(path: &Path, directory: &Path, name: &str, address: SocketAddr, user: User) {
    // The API server makes the certificate when it first starts, with its authority in the same file.
    let authority = directory.join("certificates/apiserver.crt");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: {name}, cluster: {{server: 'https://{address}', certificate-authority: '{}'}}}}]
users: [{{name: {user}, user: {{token: {}}}}}]
contexts: [{{name: {name}, context: {{cluster: {name}, user: {user}}}}}]
current-context: {name}
",
        authority.display(),
        token(user),
        user = user.name(),
    );
    fs::write(path, text).expect("the cluster's folder can be written");
}

const READER_RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [''], resources: [services], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [''], resources: [nodes], verbs: [list]}
- {apiGroups: [multicluster.x-k8s.io], resources: [serviceexports, serviceimports], verbs: [list, watch]}
- {apiGroups: [signpost.dev], resources: [serviceloads, clusterloads], verbs: [list, watch]}
- {apiGroups: [''], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: voter}
---
apiVersion: v1
kind: Namespace
metadata: {name: signpost}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: signpost-votes, namespace: signpost}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [list, watch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: signpost-votes, namespace: signpost}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: signpost-votes}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: voter}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: signpost-voter, namespace: signpost}
rules:
- {apiGroups: [''], resources: [configmaps], verbs: [create, patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: signpost-voter, namespace: signpost}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: signpost-voter}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: voter}]
";

fn node_manifest() -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\n")
}

/// A namespace with a Service of type LoadBalancer and the Deployment behind it. The ports are those of the 2015 example.
pub fn workload(namespace: &str, name: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  selector: {{app: {name}}}
  ports: [{{name: client, port: 2379}}, {{name: peer, port: 2380}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeName: {NODE}
      containers: [{{name: server, image: none}}]
"
    )
}

#[derive(Clone)]
struct Programs {
    etcd: PathBuf,
    api: PathBuf,
    manager: PathBuf,
    kwok: PathBuf,
    kubectl: PathBuf,
}

impl Programs {
    /// KUBEBUILDER_ASSETS is envtest's convention and need not have all of them; the rest is what `make testbed` builds.
    fn find() -> Result<Programs, String> {
        let named = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let find = |program: &str| {
            let folders = named.iter().cloned().chain([built()]);
            folders.map(|folder| folder.join(program)).find(|path| path.is_file())
        };
        let need = |program: &str| {
            find(program).ok_or_else(|| {
                format!(
                    "{program} is not in target/testbed: run `make testbed`, or set KUBEBUILDER_ASSETS to its folder"
                )
            })
        };
        Ok(Programs {
            etcd: need("etcd")?,
            api: need("kube-apiserver")?,
            manager: need("kube-controller-manager")?,
            kwok: need("kwok")?,
            // `make testbed` builds one only where the machine has none.
            kubectl: find("kubectl").unwrap_or_else(|| PathBuf::from("kubectl")),
        })
    }

    fn stages(&self) -> Vec<PathBuf> {
        let folder = built().join("kwok-stages");
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| {
            panic!("{} cannot be read ({e}): run `make testbed`", folder.display());
        });
        entries.map(|entry| entry.expect("a folder that opens can be read").path()).collect()
    }
}

/// Whether there is all that a cluster needs; the error says what is missing. For those who can do without.
pub fn needs() -> Result<(), String> {
    Programs::find().map(|_| ())
}

/// Where `make testbed` puts what it builds.
pub fn built() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed")
}
