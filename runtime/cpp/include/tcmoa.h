/**
 * @file tcmoa.h
 * C interface of libtcmoa: fuse two registered images of one scene with a bundle that `tcmoa export` wrote.
 *
 *     tcmoa_fuser *fuser = NULL;
 *     if (tcmoa_open("vif-640x480", NULL, &fuser) == TCMOA_OK) {
 *         tcmoa_frame x, y, fused;
 *         tcmoa_frame_init(&x, TCMOA_RGB8, 640, 480, visible);
 *         tcmoa_frame_init(&y, TCMOA_GRAY8, 640, 480, infrared);
 *         tcmoa_frame_init(&fused, TCMOA_RGB8, 640, 480, result);
 *         tcmoa_fuse(fuser, &x, &y, &fused);
 *     }
 *     tcmoa_close(&fuser);
 *
 * **Errors.** Functions that can fail return TCMOA_OK (0) or a negative `tcmoa_status`. tcmoa_error() then returns one
 * line: what it is about, what arrived, what was expected, and what to do. A call that fails changes nothing but that
 * line and, if pixels were already written, the frame for the result.
 *
 * **Ownership.** The caller owns a handle from tcmoa_open() to tcmoa_close(). Pixels, prompt maps, options and strings
 * that the caller passes remain the caller's and are only used during the call, with the exception that tcmoa_submit()
 * states. Strings that the library returns belong to the handle (`tcmoa_info`) or to the library (tcmoa_version(),
 * tcmoa_status_name()); the caller must not free them.
 *
 * **Threads.** All functions may be called from any thread at any time, also with the same handle. The exception is
 * tcmoa_close(): no other call with that handle may be running or follow. A handle has a number of slots
 * (`tcmoa_options.slots`), each for one frame in flight. Calls from several threads run concurrently up to the number
 * of slots and wait beyond it. No lock is held while pixels are converted or the network runs.
 *
 * **Memory.** After a handle's slots have been used once, fusing host frames allocates nothing in this library. With a
 * fit, each slot keeps memory for the largest frame that it fused, about 9 bytes for each of its pixels and 12 for each
 * pixel of a row of tiles.
 *
 * **Process.** No C++ exception leaves the library. It writes nothing to stdout or stderr and installs no signal
 * handlers. It opens no network connection. OpenVINO's telemetry is part of its Python package, which is not loaded.
 *
 * **fork().** A handle belongs to the process that opened it. In a child that fork() made, every function refuses it with
 * TCMOA_ERROR_INPUT, since the threads of the backend do not exist there, and tcmoa_close() only sets it to NULL. The
 * child may open bundles itself.
 */
#ifndef TCMOA_H
#define TCMOA_H

#include <stddef.h>
#include <stdint.h>

/** Version of this header; changes when the interface changes incompatibly. */
#define TCMOA_VERSION_MAJOR 0
/** Version of this header; changes when functions are added. */
#define TCMOA_VERSION_MINOR 1
/** Version of this header; changes with corrections. */
#define TCMOA_VERSION_PATCH 0

#if defined(TCMOA_STATIC)
#define TCMOA_API
#elif defined(_WIN32) && defined(TCMOA_BUILDING)
#define TCMOA_API __declspec(dllexport)
#elif defined(_WIN32)
#define TCMOA_API __declspec(dllimport)
#elif defined(__GNUC__)
#define TCMOA_API __attribute__((visibility("default")))
#else
#define TCMOA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** A loaded bundle with the backend that runs it: the handle of all functions. */
typedef struct tcmoa_fuser tcmoa_fuser;

/** Return value of functions that can fail. Later versions may add values, all of them negative. */
typedef enum tcmoa_status {
    /** The call succeeded. */
    TCMOA_OK = 0,
    /** An error inside the library or the backend. */
    TCMOA_ERROR_INTERNAL = -1,
    /** An argument, option, frame or prompt is wrong. */
    TCMOA_ERROR_INPUT = -2,
    /** The bundle is missing, damaged, of another format or too new; nothing of it was loaded. */
    TCMOA_ERROR_BUNDLE = -3,
    /** A required library, driver or device is missing. */
    TCMOA_ERROR_MISSING = -4,
    /** Not enough memory on the host or the GPU. */
    TCMOA_ERROR_MEMORY = -5,
    /** All slots are in use: take a result with tcmoa_wait(), then try again. */
    TCMOA_ERROR_BUSY = -6,
    /** The frame is not ready yet: call tcmoa_wait() again. */
    TCMOA_ERROR_TIMEOUT = -7
} tcmoa_status;

/** Format of pixels. Rows are stored top to bottom, `stride` bytes apart. */
typedef enum tcmoa_format {
    /** 3 bytes per pixel: R, G, B. */
    TCMOA_RGB8 = 0,
    /** 3 bytes per pixel: B, G, R. */
    TCMOA_BGR8 = 1,
    /** 4 bytes per pixel: R, G, B, alpha. Alpha is ignored in sources and 255 in results. */
    TCMOA_RGBA8 = 2,
    /** 4 bytes per pixel: B, G, R, alpha. Alpha as in TCMOA_RGBA8. */
    TCMOA_BGRA8 = 3,
    /** 1 byte per pixel, full range. A source is repeated in three channels; a result is BT.601 luma. */
    TCMOA_GRAY8 = 4,
    /**
     * 2 bytes per pixel in the byte order of the machine. In a source, two percentiles of each frame become black and
     * white (`tcmoa_options.stretch_low`, `stretch_high`); a result is BT.601 luma times 257.
     */
    TCMOA_GRAY16 = 5,
    /** Plane 0: luma. Plane 1: interleaved U and V at half the width and height, rounded up. */
    TCMOA_NV12 = 6,
    /** Planes 0, 1, 2: luma, U, V. Chroma as in TCMOA_NV12. */
    TCMOA_I420 = 7
} tcmoa_format;

/** Matrix and range of luma and chroma in NV12 and I420. Ignored for other formats. */
typedef enum tcmoa_matrix {
    /** BT.601, luma 16 to 235: most cameras and videos below HD. */
    TCMOA_BT601_LIMITED = 0,
    /** BT.709, luma 16 to 235: HD video. */
    TCMOA_BT709_LIMITED = 1,
    /** BT.601, luma 0 to 255: JPEG and MJPEG. */
    TCMOA_BT601_FULL = 2,
    /** BT.709, luma 0 to 255. */
    TCMOA_BT709_FULL = 3
} tcmoa_matrix;

/**
 * How frames of another size than the bundle's are fused. The result has the size of x. Frames of the bundle's size are
 * fused as they are, at no cost, whatever the fit.
 */
typedef enum tcmoa_fit {
    /** Refuse them. The default. */
    TCMOA_FIT_EXACT = 0,
    /**
     * Resize the sources to the bundle's size and the result to the size of x; the sources may differ in size. Loses
     * detail.
     */
    TCMOA_FIT_RESIZE = 1,
    /** Pad smaller frames by repeating their edges, and crop the result. Larger frames are refused. */
    TCMOA_FIT_PAD = 2,
    /**
     * Cut frames into tiles of the bundle's size that overlap by at least 80 pixels, or half a tile, fuse them in
     * the bundle's batches, and blend them. Smaller frames are padded. Both sources must have the same size.
     */
    TCMOA_FIT_TILE = 3,
    /** TCMOA_FIT_TILE; TCMOA_FIT_RESIZE for a bundle that cannot be tiled. */
    TCMOA_FIT_AUTO = 4
} tcmoa_fit;

/** Memory that holds the pixels. */
typedef enum tcmoa_memory {
    /** Host memory. */
    TCMOA_HOST = 0,
    /**
     * Memory of the GPU on which the handle runs. The frame must be packed RGB8 or BGR8 in the bundle's channel order,
     * or GRAY8 for a source that the bundle takes with one channel, with a stride of exactly one row. It must have the
     * bundle's size, whatever `tcmoa_options.fit`.
     */
    TCMOA_CUDA = 1
} tcmoa_memory;

/** One image. Fill it with tcmoa_frame_init(), then set the fields that differ. The caller owns the pixels. */
typedef struct tcmoa_frame {
    /** A `tcmoa_format`. */
    int32_t format;
    /** A `tcmoa_memory`. */
    int32_t memory;
    /** Width in pixels. */
    int32_t width;
    /** Height in pixels. */
    int32_t height;
    /** A `tcmoa_matrix`. */
    int32_t matrix;
    /** Must be 0. */
    int32_t reserved0;
    /** First byte of each plane; NULL for planes that the format does not have. Sources are only read. */
    void *planes[3];
    /** Bytes from one row to the next, per plane. */
    size_t strides[3];
    /**
     * CUDA memory only: the CUstream or cudaStream_t whose earlier work writes a source, and whose later work may read
     * a result. NULL is the legacy default stream, CU_STREAM_PER_THREAD that of the calling thread. The caller owns
     * the stream.
     */
    void *cuda_stream;
    /** Must be 0. */
    uint64_t reserved[4];
} tcmoa_frame;

/** How a bundle is loaded. Fill it with tcmoa_options_default(), then set the fields that differ. */
typedef struct tcmoa_options {
    /** Size of this struct in the caller's header; set by tcmoa_options_default(). */
    size_t struct_size;
    /**
     * "openvino", "openvino-bf16", "tensorrt", or "auto" (also NULL): TensorRT if the bundle has an engine that runs
     * on this machine, else OpenVINO. Only read during tcmoa_open().
     */
    const char *backend;
    /** Number of threads of a backend on the CPU, 0 to 1024; 0 (default): all cores. */
    int32_t threads;
    /** Number of frames in flight at a time, 1 to 16; default 2. */
    int32_t slots;
    /** Percentile of a GRAY16 source that becomes black, 0 <= stretch_low < stretch_high <= 100; default 1. */
    double stretch_low;
    /** Percentile of a GRAY16 source that becomes white; default 99. */
    double stretch_high;
    /** Index of the GPU for "tensorrt"; default 0. */
    int32_t cuda_device;
    /** 1 (default): launch an engine as one CUDA graph; 0: without a graph. */
    int32_t cuda_graph;
    /** A `tcmoa_fit`; default TCMOA_FIT_EXACT. With TCMOA_FIT_TILE or TCMOA_FIT_AUTO a bundle may have a batch above 1. */
    int32_t fit;
    /**
     * 1: load engines that this user did not build with `tcmoa build`, too; 0 (default): only those that this user built.
     * An engine is native code, so trust whoever built it. "auto" skips an engine that is not trusted, and
     * `tcmoa_info.backend` says so.
     */
    int32_t trust_engines;
    /** Must be 0. */
    uint64_t reserved[15];
} tcmoa_options;

/** Description of a handle. The strings belong to the handle and are valid until tcmoa_close(). */
typedef struct tcmoa_info {
    /** Width of the bundle's frames in pixels; of all frames unless `tcmoa_options.fit` was set. */
    int32_t width;
    /** Height of the bundle's frames in pixels. */
    int32_t height;
    /** Number of channels of x in the graph: 3 or 1. */
    int32_t x_channels;
    /** Number of channels of y in the graph: 3 or 1. */
    int32_t y_channels;
    /**
     * Width gw of a prompt map in tokens, for frames of the bundle's size; see tcmoa_get_grid(). 0 if the network has no
     * prompt, as one that was wrapped (`tcmoa wrap`): then the functions of prompts return TCMOA_ERROR_INPUT.
     */
    int32_t grid_width;
    /** Height gh of a prompt map in tokens, for frames of the bundle's size; 0 without a prompt. */
    int32_t grid_height;
    /** Side of a token in pixels: 8 or 16; 0 without a prompt. */
    int32_t token_pixels;
    /** Number K of TC-MoAs in the model. */
    int32_t num_prompts;
    /** 1 if the graph outputs its prompts, see tcmoa_fuse_with_prompt(); else 0. */
    int32_t has_prompt;
    /** Number of frames in flight at a time. */
    int32_t slots;
    /** alpha of Eq. 8 until another is set; 1 without a prompt. */
    float default_scale;
    /** beta of Eq. 8 until another is set; 0 without a prompt. */
    float default_shift;
    /** "vif", "mef" or "mff". */
    const char *task;
    /** What x shows, e.g. "visible". */
    const char *x_role;
    /** What y shows, e.g. "infrared". */
    const char *y_role;
    /** "rgb" or "bgr": the order that needs no conversion, and the required order of CUDA frames. */
    const char *channel_order;
    /** Precision of the graph's arithmetic, e.g. "fp32". */
    const char *precision;
    /** Size of the model: "tiny", "base", "large", "custom" or another name; the name of a wrapped network. */
    const char *preset;
    /** The backend that runs the graph, e.g. "openvino (CPU)". */
    const char *backend;
    /** 1 if frames of other sizes can be cut into tiles or padded, 0 if they can only be resized; see `tcmoa_fit`. */
    int32_t can_tile;
    /** 0. */
    int32_t reserved0;
    /** 0. */
    uint64_t reserved[7];
} tcmoa_info;

/** Counters of a handle since tcmoa_open(). Times are sums over the frames in `frames`, in nanoseconds. */
typedef struct tcmoa_stats {
    /** Number of frames fused. */
    uint64_t frames;
    /** Number of frames that failed after they had a slot. */
    uint64_t failed;
    /** Number of frames that were discarded with tcmoa_discard(). */
    uint64_t discarded;
    /** Time from the start of the network to its end. */
    uint64_t backend_ns;
    /** Time for converting frames to the graph's tensors and back. */
    uint64_t convert_ns;
    /** 0. */
    uint64_t reserved[4];
} tcmoa_stats;

/**
 * Return the version of the library that is loaded, which may differ from the header's.
 *
 * @return "MAJOR.MINOR.PATCH"; belongs to the library.
 */
TCMOA_API const char *tcmoa_version(void);

/**
 * Return the name of a status.
 *
 * @param status A return value of this library.
 * @return E.g. "TCMOA_ERROR_INPUT", or "unknown status"; belongs to the library.
 */
TCMOA_API const char *tcmoa_status_name(int status);

/**
 * Set all options to their defaults.
 *
 * @param options Struct to fill; NULL does nothing.
 */
TCMOA_API void tcmoa_options_default(tcmoa_options *options);

/**
 * Describe an image in host memory whose rows and planes follow each other without gaps.
 *
 * Sets every field, with the matrix TCMOA_BT601_LIMITED. Does not fail: an unknown format or a wrong size is refused by
 * the function that uses the frame.
 *
 * @param frame Struct to fill; NULL does nothing.
 * @param format A `tcmoa_format`.
 * @param width Width in pixels, 1 to 65536.
 * @param height Height in pixels, 1 to 65536.
 * @param data First byte of the image, tcmoa_frame_bytes() long, owned by the caller; NULL leaves the planes NULL.
 */
TCMOA_API void tcmoa_frame_init(tcmoa_frame *frame, int format, int width, int height, void *data);

/**
 * Return the size of an image whose rows and planes follow each other without gaps.
 *
 * @param format A `tcmoa_format`.
 * @param width Width in pixels, 1 to 65536.
 * @param height Height in pixels, 1 to 65536.
 * @return Number of bytes; 0 for an unknown format or a size out of range.
 */
TCMOA_API size_t tcmoa_frame_bytes(int format, int width, int height);

/**
 * Check a bundle, load it and warm it up.
 *
 * bundle.json and the graph, or the engine, are compared with their hashes before anything of them is loaded.
 * OpenVINO's compiled model is cached in the user's cache folder (`~/.cache/tcmoa`) if that is private, which makes the
 * next start fast.
 *
 * @param path Bundle folder in UTF-8, as `tcmoa export` wrote it.
 * @param options Options, only read during the call; NULL for the defaults.
 * @param fuser Receives the handle, owned by the caller, or NULL if the call fails. Close it with tcmoa_close().
 * @return TCMOA_OK, or TCMOA_ERROR_INPUT, TCMOA_ERROR_BUNDLE, TCMOA_ERROR_MISSING, TCMOA_ERROR_MEMORY or
 *     TCMOA_ERROR_INTERNAL; then tcmoa_error() with NULL has the message.
 */
TCMOA_API int tcmoa_open(const char *path, const tcmoa_options *options, tcmoa_fuser **fuser);

/**
 * Wait for all frames in flight, free the handle and set it to NULL.
 *
 * Not thread-safe: no other call with this handle may be running or follow.
 *
 * @param fuser Address of a handle; NULL, or the address of NULL, does nothing.
 */
TCMOA_API void tcmoa_close(tcmoa_fuser **fuser);

/**
 * Copy the message of the last failed call.
 *
 * The message is one line of UTF-8: `subject: problem; expected what. Remedy.` With a handle it is of the last failed
 * call with this handle, by any thread. Without one it is of the calling thread's last failed call without a handle: a
 * failed tcmoa_open(), or a call with a NULL handle.
 *
 * @param fuser A handle, or NULL.
 * @param text Buffer of the caller; receives at most `size` bytes with the final 0. May be NULL if `size` is 0.
 * @param size Size of the buffer in bytes.
 * @return Length of the whole message in bytes, without the final 0; 0 if no call failed yet.
 */
TCMOA_API size_t tcmoa_error(const tcmoa_fuser *fuser, char *text, size_t size);

/**
 * Get the description of a handle.
 *
 * @param fuser A handle.
 * @param info Struct to fill.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT.
 */
TCMOA_API int tcmoa_get_info(tcmoa_fuser *fuser, tcmoa_info *info);

/**
 * Get the counters of a handle.
 *
 * @param fuser A handle.
 * @param stats Struct to fill.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT.
 */
TCMOA_API int tcmoa_get_stats(tcmoa_fuser *fuser, tcmoa_stats *stats);

/**
 * Set alpha and beta of Eq. 8 for the whole frame; frames that start later use them.
 *
 * alpha 1 and beta 0 leave the prompts of the network unchanged; a larger beta gives x more weight. Takes microseconds.
 *
 * @param fuser A handle.
 * @param scale alpha, from -16 to 16.
 * @param shift beta, from -16 to 16.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT, also if the network has no prompt.
 */
TCMOA_API int tcmoa_set_prompt(tcmoa_fuser *fuser, float scale, float shift);

/**
 * Get the size of prompt maps for frames of a size, which is that of tcmoa_info for frames of the bundle's size.
 *
 * @param fuser A handle.
 * @param width Width of the frames in pixels.
 * @param height Height of the frames in pixels.
 * @param grid_width Receives gw, the width of a map in tokens.
 * @param grid_height Receives gh, the height of a map in tokens. Both are 0 if the network has no prompt.
 * @return TCMOA_OK, or TCMOA_ERROR_INPUT, also for a size that `tcmoa_options.fit` refuses.
 */
TCMOA_API int tcmoa_get_grid(tcmoa_fuser *fuser, int width, int height, int32_t *grid_width, int32_t *grid_height);

/**
 * Set alpha and beta of Eq. 8 per token, for frames of the bundle's size; frames that start later use them.
 *
 * Maps are row-major [gh, gw] (`grid_height`, `grid_width` of `tcmoa_info`) with values from -16 to 16, and are copied.
 *
 * @param fuser A handle.
 * @param scale Map of alpha, owned by the caller; NULL keeps the current one.
 * @param shift Map of beta, owned by the caller; NULL keeps the current one.
 * @param count Number of values in each map: gh * gw.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT, also if the network has no prompt.
 */
TCMOA_API int tcmoa_set_prompt_maps(tcmoa_fuser *fuser, const float *scale, const float *shift, size_t count);

/**
 * Set alpha and beta of Eq. 8 per token, for frames of another size than the bundle's; frames that start later use them.
 *
 * A handle has one map of alpha and one of beta at a time. Frames whose maps have another number of tokens are refused
 * until maps for their size, or one value with tcmoa_set_prompt(), are set. Maps are copied.
 *
 * @param fuser A handle.
 * @param width Width of the frames in pixels.
 * @param height Height of the frames in pixels.
 * @param scale Map of alpha, row-major [gh, gw] of tcmoa_get_grid(), owned by the caller; NULL keeps the current one.
 * @param shift Map of beta, as scale.
 * @param count Number of values in each map: gh * gw.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT, also if the network has no prompt.
 */
TCMOA_API int tcmoa_set_prompt_maps_for_size(tcmoa_fuser *fuser, int width, int height, const float *scale,
                                             const float *shift, size_t count);

/**
 * Copy the current maps of alpha and beta of Eq. 8, row-major [gh, gw].
 *
 * @param fuser A handle.
 * @param scale Buffer of the caller for alpha, or NULL.
 * @param shift Buffer of the caller for beta, or NULL.
 * @param count Number of values in each buffer: gh * gw of the maps that were set, else of the bundle.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT, also if the network has no prompt.
 */
TCMOA_API int tcmoa_get_prompt_maps(tcmoa_fuser *fuser, float *scale, float *shift, size_t count);

/**
 * Fuse one pair of frames and wait for the result.
 *
 * Sources have the bundle's width and height, or any that `tcmoa_options.fit` accepts, and any formats. `fused` has the
 * size of x and any format, and may share memory with a source. With OpenVINO, packed host frames of the bundle's size
 * in the bundle's channel order (one channel if the graph takes one) are used without a copy.
 * If all slots are in use by other threads, the call waits for a free one. After a failure the content of `fused` is
 * undefined.
 *
 * @param fuser A handle.
 * @param x First source, owned by the caller; must not change during the call.
 * @param y Second source, owned by the caller; must not change during the call.
 * @param fused Frame for the result, owned by the caller.
 * @return TCMOA_OK, or TCMOA_ERROR_INPUT, TCMOA_ERROR_BUSY (all slots hold submitted frames), TCMOA_ERROR_MEMORY or
 *     TCMOA_ERROR_INTERNAL.
 */
TCMOA_API int tcmoa_fuse(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused);

/**
 * Fuse one pair of frames, wait for the result, and get the prompts after Eq. 8.
 *
 * Needs a bundle that was exported with its prompt output (`has_prompt` of `tcmoa_info`). Otherwise as tcmoa_fuse().
 *
 * @param fuser A handle.
 * @param x First source, as in tcmoa_fuse().
 * @param y Second source, as in tcmoa_fuse().
 * @param fused Frame for the result, as in tcmoa_fuse().
 * @param prompt Buffer of the caller for float32 [K, 2, gh, gw], row-major: prompt_x and prompt_y of the K TC-MoAs.
 * @param count Number of floats in `prompt`: exactly K * 2 * gh * gw, with the grid of tcmoa_get_grid() for x.
 * @return As tcmoa_fuse().
 */
TCMOA_API int tcmoa_fuse_with_prompt(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y,
                                     const tcmoa_frame *fused, float *prompt, size_t count);

/**
 * Start to fuse one pair of frames and return without waiting.
 *
 * Each started frame occupies a slot until tcmoa_wait() or tcmoa_discard() takes its ticket. Of a frame in several
 * tiles the first run of the network starts here, and the following ones start in tcmoa_wait().
 *
 * @param fuser A handle.
 * @param x First source, owned by the caller. Host pixels are copied before the call returns; CUDA pixels must not
 * change
 *     until tcmoa_wait() or tcmoa_discard() has returned for this ticket.
 * @param y Second source, as x.
 * @param ticket Receives a number that identifies the frame; never 0.
 * @return TCMOA_OK, or TCMOA_ERROR_INPUT, TCMOA_ERROR_BUSY (no slot is free), TCMOA_ERROR_MEMORY or
 *     TCMOA_ERROR_INTERNAL.
 */
TCMOA_API int tcmoa_submit(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, uint64_t *ticket);

/**
 * Wait for a started frame and write its result.
 *
 * The ticket is invalid and the slot free after success and after a failure of the network. The ticket stays valid
 * after TCMOA_ERROR_TIMEOUT, and if `fused` is refused. One thread at a time may wait for a ticket.
 *
 * @param fuser A handle.
 * @param ticket Ticket of tcmoa_submit() that was not taken yet.
 * @param fused Frame for the result, owned by the caller.
 * @param timeout_ms Maximum time to wait in milliseconds; 0 returns at once; negative: no limit.
 * @return TCMOA_OK, or TCMOA_ERROR_TIMEOUT, TCMOA_ERROR_INPUT, TCMOA_ERROR_MEMORY or TCMOA_ERROR_INTERNAL.
 */
TCMOA_API int tcmoa_wait(tcmoa_fuser *fuser, uint64_t ticket, const tcmoa_frame *fused, int64_t timeout_ms);

/**
 * Wait for a started frame, drop its result and free its slot.
 *
 * @param fuser A handle.
 * @param ticket Ticket of tcmoa_submit() that was not taken yet.
 * @return TCMOA_OK or TCMOA_ERROR_INPUT.
 */
TCMOA_API int tcmoa_discard(tcmoa_fuser *fuser, uint64_t ticket);

#ifdef __cplusplus
}
#endif

#endif
