//! One change at a time, seen by a client that asks without a pause.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use crate::bulk;
use crate::common::cluster::{Cluster, Controllers};
use crate::common::signpost::{MemberSource, Setup, Signpost};
use crate::resolver::Resolver;
use crate::usage::percentile;
use crate::{client, patch};

/// Neither changes by the second nor by the tick: each comes at another moment of whatever has a period.
const PAUSE: Duration = Duration::from_micros(13_700);
/// A change that does not show by then never will.
const DEADLINE: Duration = Duration::from_secs(30);

pub fn bench(changes: u32) -> Result<(), Box<dyn Error>> {
    // Says what to do if the test bed is not built.
    let cluster = Cluster::start_with("cluster-1", Controllers::None);
    cluster.apply(&service());
    let signpost = Signpost::start(&Setup::new(vec![MemberSource::Kubeconfig(cluster.kubeconfig())]));
    let mut resolver = Resolver::new(signpost.ports.external)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(client(&cluster))?;

    let path = format!("/api/v1/namespaces/{}/services/{}/status", bulk::namespace(0), bulk::name(0));
    let mut times = Vec::new();
    for change in 0..changes {
        let address = bulk::address(104, change);
        let ingress = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
        runtime.block_on(patch(&client, &path, ingress))?;
        let acknowledged = Instant::now();
        wait_for(&mut resolver, address)?;
        times.push(acknowledged.elapsed());
        thread::sleep(PAUSE);
    }
    signpost.stop();

    times.sort();
    println!("{changes} changes in a real API server, from its acknowledgement to the first right answer:");
    println!("{:>9} {:>9} {:>9} {:>9}", "p50 ms", "p90 ms", "p99 ms", "max ms");
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&times, share));
    println!("{p50:9.2} {p90:9.2} {p99:9.2} {max:9.2}\n");
    Ok(())
}

fn service() -> String {
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
  ports: [{{name: client, port: 2379}}]
",
        namespace = bulk::namespace(0),
        name = bulk::name(0),
    )
}

/// Asks again and again until this is the answer.
fn wait_for(resolver: &mut Resolver, address: Ipv4Addr) -> io::Result<()> {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if resolver.ask(0)?.as_deref() == Some(&[address]) {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} is not answered {DEADLINE:?} after the change")))
}
