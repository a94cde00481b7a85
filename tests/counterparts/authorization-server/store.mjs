// Storage for oidc-provider: everything in one process, nothing evicted, static clients looked up live.

const now = () => Math.floor(Date.now() / 1000);

export class MemoryStore {
    #models = new Map();

    /** `clientOf(id)` answers for clients that no one registered; it may change its answer. */
    constructor(clientOf) {
        this.clientOf = clientOf;
        this.adapter = (model) => this.#adapter(model);
    }

    forget(model) {
        this.#records(model).clear();
    }

    #records(model) {
        if (!this.#models.has(model)) this.#models.set(model, new Map());
        return this.#models.get(model);
    }

    #adapter(model) {
        const records = this.#records(model);
        const live = (id) => {
            const record = records.get(id);
            if (record === undefined) return undefined;
            if (record.until !== null && record.until <= now()) {
                records.delete(id);
                return undefined;
            }
            return record.payload;
        };
        const search = (field, value) => {
            for (const id of records.keys()) {
                const payload = live(id);
                if (payload?.[field] === value) return payload;
            }
            return undefined;
        };
        return {
            upsert: async (id, payload, expiresIn) => {
                records.set(id, { payload, until: expiresIn === undefined ? null : now() + expiresIn });
            },
            find: async (id) => live(id) ?? (model === 'Client' ? this.clientOf(id) : undefined),
            findByUid: async (uid) => search('uid', uid),
            findByUserCode: async (code) => search('userCode', code),
            consume: async (id) => {
                const payload = live(id);
                if (payload) payload.consumed = now();
            },
            destroy: async (id) => {
                records.delete(id);
            },
            revokeByGrantId: async (grantId) => {
                for (const [id, { payload }] of records) if (payload.grantId === grantId) records.delete(id);
            }
        };
    }
}
