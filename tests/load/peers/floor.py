"""No proxy: bytes passed on without a look at them, by gateway-load itself. What nobody can undercut who reads and
writes each message once."""

from . import Peer


class Floor(Peer):
    name = "floor"
    about = "bytes passed on without a look: what the system alone costs; no peer, it sets no target"

    def __init__(self, load):
        self.load = load

    def left_out(self, variant):
        if variant.tls or variant.hold or variant.logs or variant.policies or variant.grows:
            return "it only passes bytes on"
        return None

    def files(self, setup):
        return {}

    def command(self, setup):
        return [self.load, "forward", "--listen", setup.listen, "--target", setup.origin]

    def version(self, bin):
        return "this commit"
