/* Fuse two raw images from files: a complete program in C.
 *
 *     fuse_raw BUNDLE X.rgb Y.gray OUT.rgb [BETA]
 *
 * X.rgb and OUT.rgb contain packed RGB, Y.gray one byte per pixel, in the bundle's frame size. E.g. make them with
 *
 *     ffmpeg -i visible.png -pix_fmt rgb24 -f rawvideo x.rgb
 *     ffmpeg -i infrared.png -pix_fmt gray -f rawvideo y.gray
 */
#include <stdio.h>
#include <stdlib.h>

#include "tcmoa.h"

static int print_error(const tcmoa_fuser *fuser) {
    char text[512];
    tcmoa_error(fuser, text, sizeof text);
    fprintf(stderr, "fuse_raw: %s\n", text);
    return 1;
}

/* Read or write a whole file; returns whether that succeeded. */
static int transfer(const char *path, const char *mode, void *bytes, size_t count) {
    FILE *file = fopen(path, mode);
    size_t done = 0;
    if (file != NULL) {
        done = mode[0] == 'r' ? fread(bytes, 1, count, file) : fwrite(bytes, 1, count, file);
        if (fclose(file) != 0) done = 0;
    }
    if (done != count) {
        const char *expected = mode[0] == 'r' ? "a file of the bundle's frame size" : "a writable path";
        fprintf(stderr, "fuse_raw: %s: %zu of %zu bytes; expected %s\n", path, done, count, expected);
    }
    return done == count;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: fuse_raw BUNDLE X.rgb Y.gray OUT.rgb [BETA]\n");
        return 2;
    }
    tcmoa_fuser *fuser = NULL;
    if (tcmoa_open(argv[1], NULL, &fuser) != TCMOA_OK) return print_error(NULL);

    tcmoa_info info;
    int failed = tcmoa_get_info(fuser, &info);
    size_t rgb_bytes = tcmoa_frame_bytes(TCMOA_RGB8, info.width, info.height);
    size_t gray_bytes = tcmoa_frame_bytes(TCMOA_GRAY8, info.width, info.height);
    unsigned char *x = malloc(rgb_bytes), *y = malloc(gray_bytes);
    tcmoa_frame frame_x, frame_y;
    tcmoa_frame_init(&frame_x, TCMOA_RGB8, info.width, info.height, x);
    tcmoa_frame_init(&frame_y, TCMOA_GRAY8, info.width, info.height, y);

    failed = failed || x == NULL || y == NULL || !transfer(argv[2], "rb", x, rgb_bytes) ||
             !transfer(argv[3], "rb", y, gray_bytes);
    if (!failed) {
        failed = tcmoa_set_prompt(fuser, 1.0F, argc > 5 ? strtof(argv[5], NULL) : 0.0F) != TCMOA_OK ||
                 tcmoa_fuse(fuser, &frame_x, &frame_y, &frame_x) != TCMOA_OK; /* the result may overwrite x */
        failed = failed ? print_error(fuser) : !transfer(argv[4], "wb", x, rgb_bytes);
    }
    if (!failed) printf("fused %s: %s + %s with %s\n", info.task, info.x_role, info.y_role, info.backend);
    free(x);
    free(y);
    tcmoa_close(&fuser);
    return failed ? 1 : 0;
}
