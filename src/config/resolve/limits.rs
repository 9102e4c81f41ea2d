//! The limits: defaults and ranges.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Resolver, shortened};
use crate::config::Limits;
use crate::config::error::Fault;
use crate::config::raw::{At, RawLimits, RawWorkers};
use crate::model::parse_duration;

const MAX_UDP_WORKERS: u16 = 256;
/// WIRE: 1,024 connections, 32 of them per client, 10 s idle, 30 s on internal listeners.
const DEFAULT_TCP_CONNECTIONS: u32 = 1024;
const DEFAULT_TCP_CONNECTIONS_PER_CLIENT: u32 = 32;
const DEFAULT_TCP_IDLE: Duration = Duration::from_secs(10);
const DEFAULT_TCP_IDLE_INTERNAL: Duration = Duration::from_secs(30);
/// Under a second, nobody could send a second query; above an hour, the connections would be full of the dead.
const TCP_IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const DEFAULT_SYNC_WAIT: Duration = Duration::from_secs(30);
const SYNC_WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
/// Kubernetes kills 30 s after SIGTERM, if nothing else is said.
const LAME_DUCK: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
/// Holds the bursts that arrive while a worker is descheduled; doubled by the kernel for its own bookkeeping.
const DEFAULT_UDP_RECEIVE_BUFFER: u32 = 4 << 20;
/// 20,000 Services as `kubectl get -o yaml` prints them are about 40 MB.
const DEFAULT_MANIFEST_SIZE: u64 = 64 << 20;
const DEFAULT_MANIFEST_FILES: u32 = 10_000;
/// Twice what was measured for one cluster.
const DEFAULT_OBJECTS_PER_CLUSTER: u32 = 200_000;
const DEFAULT_ENDPOINTS_PER_SERVICE: u32 = 20_000;

impl Resolver<'_> {
    pub(super) fn limits(&mut self, raw: RawLimits, cores: usize) -> Limits {
        let connections_key = "limits.tcpConnections";
        let tcp_connections =
            self.number(raw.tcp_connections, connections_key, 1..=65_536, "connections", DEFAULT_TCP_CONNECTIONS);
        let tcp_connections_per_client = self.number(
            raw.tcp_connections_per_client,
            "limits.tcpConnectionsPerClient",
            1..=u64::from(tcp_connections),
            "connections (as many as `tcpConnections`)",
            DEFAULT_TCP_CONNECTIONS_PER_CLIENT.min(tcp_connections),
        );
        let buffer = raw.udp_receive_buffer;
        Limits {
            udp_workers: self.workers(raw.udp_workers, cores),
            udp_receive_buffer: self.number(
                buffer,
                "limits.udpReceiveBuffer",
                65_536..=268_435_456,
                "octets",
                DEFAULT_UDP_RECEIVE_BUFFER,
            ),
            tcp_connections,
            tcp_connections_per_client,
            tcp_idle: self.duration(raw.tcp_idle, "limits.tcpIdle", TCP_IDLE, DEFAULT_TCP_IDLE),
            tcp_idle_internal: self.duration(
                raw.tcp_idle_internal,
                "limits.tcpIdleInternal",
                TCP_IDLE,
                DEFAULT_TCP_IDLE_INTERNAL,
            ),
            sync_wait: self.duration(raw.sync_wait, "limits.syncWait", SYNC_WAIT, DEFAULT_SYNC_WAIT),
            lame_duck: self.duration(raw.lame_duck, "limits.lameDuck", LAME_DUCK, Duration::ZERO),
            manifest_size: self.number(
                raw.manifest_size,
                "limits.manifestSize",
                1_024..=1_073_741_824,
                "octets",
                DEFAULT_MANIFEST_SIZE,
            ),
            manifest_files: self.number(
                raw.manifest_files,
                "limits.manifestFiles",
                1..=100_000,
                "files",
                DEFAULT_MANIFEST_FILES,
            ),
            objects_per_cluster: self.number(
                raw.objects_per_cluster,
                "limits.objectsPerCluster",
                1..=10_000_000,
                "objects",
                DEFAULT_OBJECTS_PER_CLUSTER,
            ),
            endpoints_per_service: self.number(
                raw.endpoints_per_service,
                "limits.endpointsPerService",
                1..=1_000_000,
                "endpoints",
                DEFAULT_ENDPOINTS_PER_SERVICE,
            ),
        }
    }

    fn workers(&mut self, raw: Option<At<RawWorkers>>, cores: usize) -> u16 {
        let auto = u16::try_from(cores).unwrap_or(MAX_UDP_WORKERS).clamp(1, MAX_UDP_WORKERS);
        let Some(raw) = raw else { return auto };
        match raw.value {
            RawWorkers::Auto => auto,
            RawWorkers::Number(number) => {
                let number = At::new(number, raw.referenced, raw.defined);
                let range = 1..=u64::from(MAX_UDP_WORKERS);
                self.number(Some(number), "limits.udpWorkers", range, "threads, or `auto`", auto)
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        raw: Option<At<String>>,
        key: &str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(raw) = raw else { return default };
        let fault = match parse_duration(&raw.value) {
            Some(duration) if range.contains(&duration) => return duration,
            Some(_) => {
                let (min, max) = range.into_inner();
                Fault::DurationOutOfRange { got: shortened(&raw.value), min: min.as_secs(), max: max.as_secs() }
            }
            None => Fault::Duration(shortened(&raw.value)),
        };
        self.fault(&raw, key, fault);
        default
    }
}
