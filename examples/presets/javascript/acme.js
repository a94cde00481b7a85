// The preset `acme-javascript`: Acme keeps documents; reading and writing them
// needs different scopes.

import { allow, deny, need, oauth2 } from "./countersign.js";

const READ = "documents:read";
const WRITE = "documents:write";

export const provider = {
  describe(_settings) {
    return oauth2({
      name: "acme-javascript",
      displayName: "Acme",
      version: "0.1.0",
      authorize: "https://login.acme.example/authorize",
      token: "https://login.acme.example/token",
      audience: ["api.acme.example"],
      scopes: [
        { name: READ, title: "Read documents" },
        { name: WRITE, title: "Write documents", implies: [READ] },
      ],
      defaultScopes: [READ],
    });
  },

  evaluate(call, grant) {
    if (call.method !== "tools/call") return allow();
    if (call.name === "erase") {
      return deny("not_for_agents", "Only a person may erase: do it on acme.example.");
    }
    const reads = /^(read|list)_/.test(call.name);
    if (grant.scopes.includes(WRITE) || (reads && grant.scopes.includes(READ))) return allow();
    return need(reads ? READ : WRITE);
  },
};
