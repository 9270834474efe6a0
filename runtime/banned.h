/*
 * Functions that the library must not call. The build puts this file in front of each of its
 * sources (-include), so the headers that declare them come first: a macro of that name in their
 * place would garble the declarations. A call then fails to compile on an identifier that says
 * what to use instead. Not installed, and never included by hand.
 */
#ifndef SHOAL_RUNTIME_BANNED_H
#define SHOAL_RUNTIME_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef strcpy
#undef strcat
#undef strncpy
#undef strtok
#undef sprintf
#undef vsprintf
#undef atoi
#undef atol
#undef gmtime
#undef localtime
#undef ctime
#undef asctime
#undef system
#undef popen

#define strcpy(...)    banned_strcpy_use_memcpy_or_snprintf
#define strcat(...)    banned_strcat_use_snprintf
#define strncpy(...)   banned_strncpy_use_memcpy_or_snprintf
#define strtok(...)    banned_strtok_use_strtok_r
#define sprintf(...)   banned_sprintf_use_snprintf
#define vsprintf(...)  banned_vsprintf_use_vsnprintf
#define atoi(...)      banned_atoi_use_strtoll
#define atol(...)      banned_atol_use_strtoll
#define gmtime(...)    banned_gmtime_use_gmtime_r
#define localtime(...) banned_localtime_use_localtime_r
#define ctime(...)     banned_ctime_use_strftime
#define asctime(...)   banned_asctime_use_strftime
#define system(...)    banned_system_use_posix_spawn
#define popen(...)     banned_popen_use_posix_spawn

#endif
