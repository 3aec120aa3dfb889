//! `--phase-timing`: where the time of requests goes.

use gateway_data_plane::telemetry::metrics::Phase;

use crate::support::{Gateway, Proxy, Target, forwarding};

#[tokio::test]
async fn a_forwarded_request_passes_each_phase_once() {
    let target = Target::bind().await;
    let documents = forwarding(&target.address.to_string(), "{}");
    let gateway = Gateway::start_with("{}", &documents, |config| config.phase_timing = true).await;
    let proxy = Proxy { gateway, target };
    let _connections = proxy.pooled().await;
    for phase in Phase::ALL {
        let count = format!("gateway_phase_duration_seconds_count{{phase=\"{}\"}} 1", phase.name());
        proxy.gateway.counts(&count).await;
    }
}
