"""The preset `acme-python`: Acme keeps documents; reading and writing them
needs different scopes."""

from countersign import Scope, allow, deny, need, oauth2
from wit_world import exports

READ = "documents:read"
WRITE = "documents:write"


class Provider(exports.Provider):
    def describe(self, settings):
        return oauth2(
            name="acme-python",
            display_name="Acme",
            version="0.1.0",
            authorize="https://login.acme.example/authorize",
            token="https://login.acme.example/token",
            audience=["api.acme.example"],
            scopes=[
                Scope(READ, "Read documents", [], None, False),
                Scope(WRITE, "Write documents", [READ], None, False),
            ],
            default_scopes=[READ],
        )

    def evaluate(self, call, grant):
        if call.method != "tools/call":
            return allow()
        if call.name == "erase":
            return deny("not_for_agents", "Only a person may erase: do it on acme.example.")
        reads = call.name.startswith(("read_", "list_"))
        if WRITE in grant.scopes or (reads and READ in grant.scopes):
            return allow()
        return need(READ if reads else WRITE)
