/*
 * A wrong program, for the sanitizer that compiles it, whose report shows that
 * the sanitizer is active. With AddressSanitizer and ThreadSanitizer the library
 * makes the wrong access.
 */
#include <keepsock.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(WRONG_address)

/* Reads a freed text. */
int main(void) {
    keepsock_address address;
    char *text = malloc(16);
    if (text == NULL)
        return 1;
    strcpy(text, "127.0.0.1:80");
    free(text);
    return keepsock_address_parse(text, &address, NULL) == KEEPSOCK_OK ? 0 : 1;
}

#elif defined(WRONG_thread)

#include <pthread.h>

static keepsock_address address;

/* Writes the address that another thread writes at the same time. */
static void *parse(void *text) {
    for (int i = 0; i < 1000; i++)
        keepsock_address_parse(text, &address, NULL);
    return NULL;
}

int main(void) {
    static char text[] = "127.0.0.1:80";
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, parse, text) != 0)
            return 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

#elif defined(WRONG_undefined)

int main(int argc, char **argv) {
    (void)argv;
    printf("%d\n", INT_MAX + argc);
    return 0;
}

#endif
