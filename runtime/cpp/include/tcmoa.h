/* tcmoa.h - fuse two registered images of one scene into one, from a bundle that `tcmoa export` wrote.
 *
 * Frames in, frame out:
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
 * Returns. Functions that can fail return TCMOA_OK (0) or a negative `tcmoa_status`; tcmoa_error() then gives the
 * reason in one line: what arrived, what was expected, what to do. A call that fails changes nothing but that line
 * and, where pixels were already being written, the frame for the result.
 *
 * Ownership. A handle belongs to the caller from tcmoa_open() to tcmoa_close(). Pixels, prompt maps, options and
 * strings that are passed in stay the caller's and are only read during the call, with one exception that
 * tcmoa_submit() states. Strings that come out belong to the handle (`tcmoa_info`) or to the library (tcmoa_version(),
 * tcmoa_status_name()) and are never freed by the caller.
 *
 * Threads. All functions may be called from any thread at any time, with the same handle too, except tcmoa_close():
 * no other call with that handle may be running or come later. A handle has a number of slots (`tcmoa_options.slots`),
 * each of which holds one frame in flight; its one lock is held while a slot is taken or given back and while prompts
 * are copied, never while pixels are converted or the network runs. So calls from several threads run beside each
 * other up to the number of slots, and wait beyond it.
 *
 * Memory. After a handle's slots have been used once, fusing host frames allocates nothing in this library.
 *
 * No C++ exception leaves the library, it writes nothing to stdout or stderr, and it installs no handlers.
 */
#ifndef TCMOA_H
#define TCMOA_H

#include <stddef.h>
#include <stdint.h>

#define TCMOA_VERSION_MAJOR 0
#define TCMOA_VERSION_MINOR 1
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

/* A loaded bundle with everything that runs it. */
typedef struct tcmoa_fuser tcmoa_fuser;

/* What functions return. New values may come, all of them negative. */
typedef enum tcmoa_status {
    TCMOA_OK = 0,
    TCMOA_ERROR_INTERNAL = -1, /* a fault of this library or of what runs the network */
    TCMOA_ERROR_INPUT = -2,    /* an argument, option, frame or prompt is wrong */
    TCMOA_ERROR_BUNDLE = -3,   /* the bundle is missing, damaged, foreign or too new; nothing of it was loaded */
    TCMOA_ERROR_MISSING = -4,  /* a library, driver or device that is needed is not there */
    TCMOA_ERROR_MEMORY = -5,   /* not enough memory, on the host or on the GPU */
    TCMOA_ERROR_BUSY = -6,     /* all slots hold frames: take a result first, then try again */
    TCMOA_ERROR_TIMEOUT = -7   /* the frame is not ready yet: wait again */
} tcmoa_status;

/* Layout of pixels. Rows lie top to bottom, `stride` bytes apart. */
typedef enum tcmoa_format {
    TCMOA_RGB8 = 0,   /* 3 bytes a pixel */
    TCMOA_BGR8 = 1,   /* 3 bytes a pixel */
    TCMOA_RGBA8 = 2,  /* 4 bytes a pixel; alpha is ignored in sources and 255 in results */
    TCMOA_BGRA8 = 3,  /* 4 bytes a pixel; alpha as above */
    TCMOA_GRAY8 = 4,  /* 1 byte a pixel, full range; repeated in three channels, or luma of the result (BT.601) */
    TCMOA_GRAY16 = 5, /* 2 bytes a pixel in the machine's byte order. In sources, percentiles of each frame become
                         black and white (`tcmoa_options.stretch_low`, `stretch_high`); in results, luma times 257 */
    TCMOA_NV12 = 6,   /* plane 0: luma; plane 1: interleaved U, V at half width and height, rounded up */
    TCMOA_I420 = 7    /* planes 0, 1, 2: luma, U, V; chroma as above */
} tcmoa_format;

/* How luma and chroma of NV12 and I420 relate to RGB. Ignored for other formats. */
typedef enum tcmoa_matrix {
    TCMOA_BT601_LIMITED = 0, /* luma 16 to 235: most cameras and videos below HD */
    TCMOA_BT709_LIMITED = 1, /* HD video */
    TCMOA_BT601_FULL = 2,    /* luma 0 to 255: JPEG and MJPEG */
    TCMOA_BT709_FULL = 3
} tcmoa_matrix;

/* Where pixels lie. */
typedef enum tcmoa_memory {
    TCMOA_HOST = 0,
    TCMOA_CUDA = 1 /* memory of the GPU that the handle runs on; packed RGB8 or BGR8 (GRAY8 for a source that the
                      bundle takes with one channel), in the bundle's channel order, with a stride of a row's bytes */
} tcmoa_memory;

/* One image. Fill it with tcmoa_frame_init(), then change what differs. */
typedef struct tcmoa_frame {
    int32_t format;     /* tcmoa_format */
    int32_t memory;     /* tcmoa_memory */
    int32_t width;      /* pixels */
    int32_t height;     /* pixels */
    int32_t matrix;     /* tcmoa_matrix */
    int32_t zero;       /* must be 0 */
    void *planes[3];    /* first byte of each plane; unused ones NULL. Sources are only read */
    size_t strides[3];  /* bytes from row to row, of each plane */
    void *cuda_stream;  /* CUDA memory only: the CUstream or cudaStream_t whose earlier work writes a source, and whose
                           later work may read a result; NULL is the legacy default stream */
    uint64_t reserved[4]; /* must be 0 */
} tcmoa_frame;

/* How a bundle is loaded. Fill it with tcmoa_options_default(), then change what differs. */
typedef struct tcmoa_options {
    size_t struct_size;   /* set by tcmoa_options_default(): which version of this struct the caller knows */
    const char *backend;  /* "auto" or NULL: an engine that runs here, else OpenVINO; "openvino", "openvino-bf16",
                             "tensorrt" */
    int32_t threads;      /* threads of a backend on the CPU; 0: all cores */
    int32_t slots;        /* frames in flight at a time, 1 to 16; default 2 */
    double stretch_low;   /* percentile of a GRAY16 frame that becomes black; default 1 */
    double stretch_high;  /* percentile that becomes white; default 99 */
    int32_t cuda_device;  /* GPU for "tensorrt"; default 0 */
    int32_t cuda_graph;   /* 1 (default): launch the engine as one CUDA graph; 0: do not */
    uint64_t reserved[16]; /* must be 0 */
} tcmoa_options;

/* What a handle is. Strings belong to the handle. */
typedef struct tcmoa_info {
    int32_t width, height;            /* of all frames, pixels */
    int32_t x_channels, y_channels;   /* channels that the graph sees of x and y: 3, or 1 */
    int32_t grid_width, grid_height;  /* tokens of a prompt map: gw, gh */
    int32_t token_pixels;             /* side of a token in pixels: 8 or 16 */
    int32_t prompts;                  /* number K of TC-MoAs */
    int32_t has_prompt;               /* 1 if the graph gives its prompts, see tcmoa_fuse_with_prompt() */
    int32_t slots;                    /* frames in flight at a time */
    float default_scale, default_shift; /* alpha and beta that hold until others are set */
    const char *task;                 /* "vif", "mef" or "mff" */
    const char *x_role, *y_role;      /* what x and y show, e.g. "visible" and "infrared" */
    const char *channel_order;        /* "rgb" or "bgr": of CUDA frames, and the order that needs no swapping */
    const char *precision;            /* of the graph's arithmetic: "fp32", "fp16", "bf16" */
    const char *preset;               /* sizes of the model: "tiny", "base", "large", "custom" */
    const char *backend;              /* what runs it, e.g. "openvino (CPU)" */
    uint64_t reserved[8];
} tcmoa_info;

/* What a handle has done so far. Times are sums over frames, in nanoseconds. */
typedef struct tcmoa_figures {
    uint64_t frames;       /* frames fused */
    uint64_t failed;       /* frames that failed after they had a slot */
    uint64_t dropped;      /* frames that were given up by tcmoa_discard() */
    uint64_t backend_ns;   /* from starting the network to its end */
    uint64_t convert_ns;   /* turning frames into the graph's tensors and back */
    uint64_t reserved[4];
} tcmoa_figures;

/* "MAJOR.MINOR.PATCH" of the library that is loaded, which may be newer than the header. */
TCMOA_API const char *tcmoa_version(void);

/* Name of a status, as "TCMOA_ERROR_INPUT"; "unknown status" for a value that this library does not know. */
TCMOA_API const char *tcmoa_status_name(int status);

/* Set all options to their defaults. `options` may be NULL, then nothing happens. */
TCMOA_API void tcmoa_options_default(tcmoa_options *options);

/* Describe an image in host memory whose rows and planes follow each other without gaps: sets every field, with
 * matrix TCMOA_BT601_LIMITED. An unknown format or a side below 1 is not refused here but where the frame is used.
 * `frame` may be NULL, then nothing happens. */
TCMOA_API void tcmoa_frame_init(tcmoa_frame *frame, int format, int width, int height, void *data);

/* Bytes that such an image takes; 0 for an unknown format, a side below 1, or one above 65536. */
TCMOA_API size_t tcmoa_frame_bytes(int format, int width, int height);

/* Check the bundle folder at `path` (UTF-8), load it and warm it up.
 *
 * bundle.json and the graph, or the engine, are compared with their hashes before anything of them is loaded. What
 * OpenVINO compiles is kept in the bundle's `engines/` where that can be written to, so that the next start is fast.
 *
 * options  NULL for the defaults
 * fuser    receives the handle, or NULL on failure; tcmoa_error(NULL, ...) tells why
 */
TCMOA_API int tcmoa_open(const char *path, const tcmoa_options *options, tcmoa_fuser **fuser);

/* Wait for all frames in flight, free everything and set `*fuser` to NULL. NULL and `*fuser` NULL do nothing.
 * No other call with this handle may be running. */
TCMOA_API void tcmoa_close(tcmoa_fuser **fuser);

/* Copy the reason of the last failed call with this handle, by any thread, to `text`: UTF-8, one line, always ended
 * with 0, cut to `size` bytes. With `fuser` NULL: of the calling thread's last failed call without a handle (a failed
 * tcmoa_open(), or a NULL handle). Returns the bytes of the whole message without its end; 0 if there was no failure.
 * `text` may be NULL if `size` is 0. */
TCMOA_API size_t tcmoa_error(const tcmoa_fuser *fuser, char *text, size_t size);

/* What the handle is. */
TCMOA_API int tcmoa_get_info(tcmoa_fuser *fuser, tcmoa_info *info);

/* What it has done so far. */
TCMOA_API int tcmoa_get_figures(tcmoa_fuser *fuser, tcmoa_figures *figures);

/* Set alpha (`scale`) and beta (`shift`) of Eq. 8 for the whole frame, from -16 to 16, for frames that start later.
 * alpha 1 and beta 0 leave the prompts as the network gives them; more beta is more of x. Costs microseconds. */
TCMOA_API int tcmoa_set_prompt(tcmoa_fuser *fuser, float scale, float shift);

/* The same per token: row-major maps of `count` = grid_width * grid_height numbers, which are copied. A map that is
 * NULL keeps what is set. */
TCMOA_API int tcmoa_set_prompt_maps(tcmoa_fuser *fuser, const float *scale, const float *shift, size_t count);

/* Copy the maps that hold now; either may be NULL. `count` as above. */
TCMOA_API int tcmoa_get_prompt_maps(tcmoa_fuser *fuser, float *scale, float *shift, size_t count);

/* Fuse one pair, and return when `fused` holds the result.
 *
 * x, y, fused: frames of the bundle's width and height, in any formats. `fused` may share memory with x or y. Packed
 * host frames in the bundle's channel order (one channel where its graph takes one) are worked on where they lie, with
 * OpenVINO; all others are copied. Leave x and y as they are until it returns. What `fused` holds after a failure is
 * not defined.
 * Waits for a free slot where all are in use by other threads; TCMOA_ERROR_BUSY where all hold submitted frames, which
 * somebody has to take first. */
TCMOA_API int tcmoa_fuse(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, const tcmoa_frame *fused);

/* The same, with the prompts after Eq. 8: float32 [K, 2, gh, gw], prompt_x and prompt_y of the K TC-MoAs.
 * count: numbers that `prompt` has room for, exactly K * 2 * gh * gw. Needs a bundle exported --with-prompt. */
TCMOA_API int tcmoa_fuse_with_prompt(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y,
                                     const tcmoa_frame *fused, float *prompt, size_t count);

/* Start one pair and return at once. Host pixels are copied before it returns; CUDA pixels must stay as they are until
 * tcmoa_wait() or tcmoa_discard() returned. TCMOA_ERROR_BUSY, without waiting, when all slots hold frames.
 *
 * ticket   receives a number, never 0, that stands for the frame */
TCMOA_API int tcmoa_submit(tcmoa_fuser *fuser, const tcmoa_frame *x, const tcmoa_frame *y, uint64_t *ticket);

/* Wait for a started frame and write it to `fused`; its slot is free afterwards, also when the frame failed.
 *
 * timeout_ms  TCMOA_ERROR_TIMEOUT after so many milliseconds, and the ticket stays good; 0 only asks; below 0: no limit
 * A `fused` that is refused leaves the ticket good, too. A ticket that is unknown or was taken before is refused. */
TCMOA_API int tcmoa_wait(tcmoa_fuser *fuser, uint64_t ticket, const tcmoa_frame *fused, int64_t timeout_ms);

/* Give up a started frame. Waits until the network is done with it. */
TCMOA_API int tcmoa_discard(tcmoa_fuser *fuser, uint64_t ticket);

#ifdef __cplusplus
}
#endif

#endif
