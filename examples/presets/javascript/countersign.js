// What most presets say alike: an ordinary provider (RFC 6749), as the
// description that `wit/v0.1.0/description.wit` asks for, and the verdicts.

/** A template of nothing but text. */
export const text = (literal) => [{ tag: "literal", val: literal }];

export const allow = () => ({ tag: "allow", val: { credential: undefined, rules: [] } });
export const deny = (code, message) => ({ tag: "deny", val: { code, message } });
export const need = (...scopes) => ({ tag: "need-scopes", val: scopes });

/** A provider that speaks OAuth as RFC 6749 says; change what it does differently. */
export function oauth2({ name, displayName, version, authorize, token, audience, scopes, defaultScopes }) {
  return {
    name,
    displayName,
    version,
    category: "",
    documentationUrl: "",
    wants: {},
    argumentsOf: [],
    hooks: {},
    variables: [],
    variants: [],
    authorizationHosts: [...new Set([authorize, token].map(host))].map(text),
    audienceHosts: audience.map(text),
    authorization: {
      endpoint: text(authorize),
      parameters: [],
      incrementalParameters: [],
      suppress: [],
      scopeParameters: [
        { name: "scope", separator: " ", credential: undefined, sendEmpty: false },
      ],
      pkce: "supported",
      offline: { tag: "none" },
    },
    tokenEndpoint: text(token),
    deviceAuthorizationEndpoint: undefined,
    tokenRequests: [],
    tokenAnswer: {
      successCodes: [],
      successChecks: [],
      errorCode: ["/error"],
      errorDescription: ["/error_description"],
      mayBeForm: false,
    },
    tokenShapes: [
      {
        credential: "user",
        when: [],
        optional: false,
        accessToken: ["/access_token"],
        refreshToken: ["/refresh_token"],
        idToken: ["/id_token"],
        expires: [{ tag: "lifetime", val: "/expires_in" }],
        refreshExpires: [],
        scopes: ["/scope"],
        scopeSeparators: [" "],
      },
    ],
    metadata: [],
    grantDifference: "accept",
    scopes: scopes.map(({ name, title, implies = [] }) => ({
      name,
      title,
      implies,
      parameter: undefined,
      prefix: false,
    })),
    defaultScopes,
    refresh: {
      kind: "refresh-token",
      rotation: "sometimes",
      graceSeconds: 0,
      retryAfterLostAnswer: false,
      endsAccessToken: false,
      idleDays: undefined,
      marginPercent: 10,
      permanentErrors: [],
      transientErrors: [],
    },
    revocation: [],
    followUps: [],
    identity: undefined,
    credentials: [
      {
        name: "user",
        title: "Access token",
        hosts: [],
        rules: [
          {
            tag: "set-header",
            val: {
              name: "authorization",
              value: [...text("Bearer "), { tag: "slot", val: { tag: "access-token" } }],
            },
          },
        ],
        sigv4: undefined,
      },
    ],
    constantHeaders: [],
    mcpServers: [],
    errorAdvice: [],
  };
}

const host = (url) => url.split("/")[2];
