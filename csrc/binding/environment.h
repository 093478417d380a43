/*
 * What the addon keeps for one Node environment (the main thread, or one worker): its engine, the
 * table of handles that JavaScript names by number, and the queue in which results travel to
 * JavaScript.
 *
 * JavaScript draws the numbers ("slots") and keeps an object under each; this side keeps the C
 * handle under the same number. Results do not call JavaScript one by one: each is a record in
 * memory that both sides see, and one call at the end of a series hands them all over, in one
 * callback scope, so that the promises' microtasks run once for the series.
 *
 * Everything here runs on the environment's thread.
 */
#ifndef HF_BINDING_ENVIRONMENT_H
#define HF_BINDING_ENVIRONMENT_H

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <napi.h>

#include "holdfast.h"

namespace holdfast {

// What a record tells. Exported to JavaScript by name.
enum Event : int32_t {
    kAcquired = 1,
    kLost,
    kReleased,
    kExtended,
    kBegun,
    kFinished,
    kAbandoned,
    kOpDone,
    kRecord,
    kForgotten,
    kConnected,
    kClosed,
    kWarning,
    kRenewed,
    kPassword,
    kNode,
    kHolders,
    kPgRows,
    kPgBegun,
    kPgEnded,
};

// Flags of a record, beside those that an event defines for itself.
enum RecordFlag : int32_t {
    kFailed = 1, // the extra is an error
    kYes = 2,    // was held, applied, existed, replayed
    kHeldHere = 4,
    kIsError = 4,
    kIsBytes = 8,
    kPresent = 16,
    kClaimed = 32,
    kRefusalShift = 8,
};

// Flags of acquire().
enum LockFlag : uint32_t { kRenew = 1, kVotes = 2 };

// Flags of acquireAdvisory().
enum AdvisoryFlag : uint32_t { kShared = 1, kDedicated = 2 };

// What release() says.
enum ReleaseOutcome : uint32_t {
    kReleasePending = 0,
    kReleaseLost = 1,
    kReleaseGone = 2,
    kReleaseNoMemory = 3,
};

// One result on its way to JavaScript: 12 numbers of 32 bits, the last four read as two doubles.
struct Record {
    int32_t slot;
    int32_t event;
    int32_t flags;
    int32_t extra; // index in the array of values that goes along, or -1
    int32_t token[4];
    double first;
    double second;
};
static_assert(sizeof(Record) == 48, "lib/slots.js reads records by this layout");

class Environment;

// A C handle under a slot. `owner` in C callbacks points to one of these.
struct Handle {
    enum Type : uint8_t { kClient, kLock, kRun, kOp, kCall, kAdvisory, kQuery, kTransaction };

    Handle(Environment *environment, uint32_t slot_number, Type handle_type)
        : env(environment), slot(slot_number), type(handle_type) {
    }
    virtual ~Handle() = default;
    // Gives the C handle back, if it has one. Called once, never from within one of its callbacks.
    virtual void Free() {
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    Environment *const env;
    const uint32_t slot;
    const Type type;
    bool retired = false; // JavaScript may use its slot again
};

struct ClientHandle : Handle {
    static constexpr Type kType = kClient;
    ClientHandle(Environment *environment, uint32_t slot_number)
        : Handle(environment, slot_number, kType) {
    }
    hf_client *client = nullptr;
};

class Environment {
public:
    explicit Environment(napi_env env);
    ~Environment();
    Environment(const Environment &) = delete;
    Environment &operator=(const Environment &) = delete;

    napi_env env() const {
        return env_;
    }
    hf_engine *engine() const {
        return engine_;
    }

    // Opens the engine if that has not happened. False with `error` set.
    bool Open(hf_error *error);
    // Takes the function that gets the results, and shares `records` with it.
    void Listen(napi_value callback, napi_value buffer);
    // Releases what is held; for process.on('exit').
    void Exit();

    // The handle under `slot`, or null if there is none (any more) or it is of another type.
    template <typename T> T *Get(uint32_t slot) const {
        if (slot >= handles_.size()) return nullptr;
        Handle *handle = handles_[slot];
        return handle != nullptr && handle->type == T::kType ? static_cast<T *>(handle) : nullptr;
    }
    void Put(Handle *handle);
    // Takes the handle out of the table now and deletes it when no callback of it can be running.
    void Retire(Handle *handle);

    // Whether a result for the handle still has somebody who waits for it: not once it is retired,
    // nor once the environment is ending.
    bool Hears(const Handle *handle) const {
        return !closing_ && !handle->retired;
    }
    // Queues a result. To be filled before the callback returns.
    Record &Push(const Handle *handle, Event event);
    // Adds a value to the record, made within a handle scope that lasts until it is delivered.
    void Attach(Record &record, napi_value value);
    void AttachError(Record &record, const hf_error &error);
    // Keeps a question for a password until JavaScript answers it; the number by which it does.
    uint32_t KeepQuestion(hf_password *question);
    // The question of that number, which is gone from here; null if there is none.
    hf_password *TakeQuestion(uint32_t number);
    // Opens the handle scope in which values for `Attach` are made.
    void OpenScope();
    // Delivers at once when the callback was not part of a series.
    void Settle();

private:
    static void Enter(void *data);
    static void Leave(void *data);
    static void OnEvent(void *data, const hf_event *event);
    static void OnCleanup(napi_async_cleanup_hook_handle hook, void *data);
    static void OnEngineClosed(void *data);

    void Flush();
    void Deliver(napi_value callback, uint32_t count, napi_value extras);
    void Bury();
    int32_t SlotOf(const hf_client *client) const;

    napi_env env_;
    hf_engine *engine_ = nullptr;
    napi_async_cleanup_hook_handle hook_ = nullptr;
    napi_ref callback_ = nullptr;
    napi_ref buffer_ = nullptr;
    std::unique_ptr<Napi::AsyncContext> context_;
    napi_handle_scope scope_ = nullptr;
    Record *shared_ = nullptr;
    uint32_t shared_size_ = 0;
    bool in_series_ = false;
    bool closing_ = false;
    std::vector<Handle *> handles_;
    std::vector<Handle *> retired_;
    std::vector<Record> queue_;
    std::vector<Record> batch_; // what is being delivered
    std::vector<napi_value> extras_;
    std::map<uint32_t, hf_password *> questions_;
    uint32_t last_question_ = 0;
};

} // namespace holdfast

#endif
