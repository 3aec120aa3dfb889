//! What `dev` serves when no manifests are given, and the mark by which it knows its own objects again.

use std::net::SocketAddr;

use gateway_engine::manifest::{Document, Resolver, parse};

use crate::report::Failure;

/// Label of everything that `dev` applies: what carries it and is not applied again is pruned.
pub(super) const MARK: (&str, &str) = ("gateway.dev/applied", "true");

/// A listener, the echo upstream, a route to it and one that answers by itself.
pub(super) fn documents(listen: SocketAddr, echo: SocketAddr) -> Result<Vec<Document>, Failure> {
    let text = format!(
        r#"apiVersion: gateway/v1
kind: Listener
metadata: {{ name: public }}
spec: {{ address: "{}", port: {} }}
---
apiVersion: gateway/v1
kind: Upstream
metadata: {{ name: echo }}
spec: {{ targets: [{{ address: "{echo}" }}] }}
---
apiVersion: gateway/v1
kind: Route
metadata: {{ name: echo }}
spec:
  forward: {{ backends: [{{ upstream: echo }}] }}
  policies:
    - responseHeaders: {{ set: {{ x-served-by: "${{route.name}}" }} }}
---
apiVersion: gateway/v1
kind: Route
metadata: {{ name: hello }}
spec:
  matches: [{{ path: {{ template: "/hello/{{name}}" }} }}]
  respond: {{ headers: {{ content-type: text/plain }}, body: "hello, ${{path.name}}\n" }}
"#,
        listen.ip(),
        listen.port()
    );
    parse("the sample", text.as_bytes(), &Resolver::literal()).map_err(Failure::manifests)
}

/// Marks documents as applied by `dev`.
pub(super) fn mark(documents: &mut [Document]) {
    for document in documents {
        document.resource.metadata_mut().labels.insert(MARK.0.to_owned(), MARK.1.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[test]
    fn the_sample_is_valid() {
        let addresses: [SocketAddr; 2] =
            ["[::1]:8080", "127.0.0.1:9"].map(|text| text.parse().expect("an address"));
        let mut documents = documents(addresses[0], addresses[1]).expect("it reads");
        mark(&mut documents);
        crate::validate::documents(&documents, &Output::new(true)).expect("it compiles");
        assert!(
            documents.iter().all(|it| it.resource.metadata().is_some_and(|it| it.labels[MARK.0] == MARK.1))
        );
    }
}
