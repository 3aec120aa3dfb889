//! A non-blocking client socket, plain or TLS. TLS is pinned to one version, one cipher suite and one key exchange,
//! so that every proxy does the same work; tickets are ignored, so that every handshake is a full one; certificates
//! are not checked, so that the client stays cheap.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// Where received bytes land: shared by all connections of a thread.
#[derive(Debug)]
pub(crate) struct Scratch {
    wire: Vec<u8>,
    plain: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { wire: vec![0; 256 * 1024], plain: vec![0; 64 * 1024] }
    }
}

#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Socket {
    pub(crate) fn connect(target: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        let session = |config: &Arc<ClientConfig>| {
            let name = ServerName::try_from("localhost").expect("a valid name");
            ClientConnection::new(Arc::clone(config), name).map(Box::new).map_err(io::Error::other)
        };
        Ok(Socket { stream, tls: tls.map(session).transpose()? })
    }

    /// What the poll watches.
    pub(crate) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Hands everything that has come to `take`; true when the other side has ended. A read that does not fill the
    /// buffer was the last one, unless the end is known to be there (`to_the_end`).
    pub(crate) fn receive(
        &mut self,
        scratch: &mut Scratch,
        to_the_end: bool,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        loop {
            let count = match self.stream.read(&mut scratch.wire) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let wire = &scratch.wire[..count];
            match &mut self.tls {
                None => take(wire)?,
                Some(tls) => decrypt(tls, wire, &mut scratch.plain, &mut take)?,
            }
            self.flush()?;
            if count < scratch.wire.len() && !to_the_end {
                return Ok(false);
            }
        }
    }

    /// Sends what the socket takes now; how many bytes that was.
    pub(crate) fn send(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = match &mut self.tls {
            None => self.stream.write_vectored(pieces),
            Some(tls) => tls.writer().write_vectored(pieces),
        };
        match sent {
            Ok(count) => {
                self.flush()?;
                Ok(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends TLS records that wait.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection as a well-behaved client does.
    pub(crate) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // A socket that takes nothing more is closed without it.
            let _ = self.flush();
        }
    }
}

fn decrypt(
    tls: &mut ClientConnection,
    mut wire: &[u8],
    plain: &mut [u8],
    take: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while !wire.is_empty() {
        tls.read_tls(&mut wire)?;
        let mut waiting = tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
        while waiting > 0 {
            let count = tls.reader().read(plain)?;
            take(&plain[..count])?;
            waiting -= count;
        }
    }
    Ok(())
}

/// What every TLS connection of the load asks for.
pub(crate) fn tls_config(protocol: &[u8]) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 and its cipher suite are there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The certificate is our own and the network is loopback: checking it would only make the load dearer.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
