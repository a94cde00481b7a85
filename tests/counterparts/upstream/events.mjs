// Keeps the messages of one session's streams, so that a client can come back for them.

export class EventLog {
    #events = [];

    async storeEvent(streamId, message) {
        this.#events.push({ streamId, message });
        return `${this.#events.length}_${streamId}`;
    }

    async getStreamIdForEventId(eventId) {
        return this.#events[Number.parseInt(eventId, 10) - 1]?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const last = Number.parseInt(lastEventId, 10);
        const streamId = this.#events[last - 1]?.streamId;
        if (streamId === undefined) throw new Error('unknown event id');
        for (let index = last; index < this.#events.length; index += 1) {
            const event = this.#events[index];
            // Priming events are empty and mean nothing the second time.
            if (event.streamId === streamId && Object.keys(event.message).length > 0) await send(`${index + 1}_${streamId}`, event.message);
        }
        return streamId;
    }
}
