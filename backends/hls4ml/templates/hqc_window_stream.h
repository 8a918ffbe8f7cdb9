#ifndef HQC_WINDOW_STREAM_H_
#define HQC_WINDOW_STREAM_H_

#include "hqc_conv.h"
#include "hqc_max_pool.h"
#include "nnet_dense.h"

// Windows over a stream of pixels with lines of it kept, which hls4ml's line buffers do not cover:
// padding, dilation, groups, and strides over rows of kernels that have one row. Unlike those,
// nothing here is static: each sample starts anew, and samples may be computed side by side.

namespace nnet {

// What all windows of a layer read: the rows and columns that they reach over, with padding.
template <class CONFIG_T> struct hqc_reach {
    static const unsigned height = CONFIG_T::dilation_height * (CONFIG_T::filt_height - 1) + 1;
    static const unsigned width = CONFIG_T::dilation_width * (CONFIG_T::filt_width - 1) + 1;
    static const unsigned rows = CONFIG_T::pad_top + CONFIG_T::in_height + CONFIG_T::pad_bottom;
    static const unsigned columns = CONFIG_T::pad_left + CONFIG_T::in_width + CONFIG_T::pad_right;
    static const unsigned lines = height > 1 ? height - 1 : 1;

    // Whether a pixel of the padded image is one of the image.
    static bool inside(int row, int column) {
        return hqc_tap<CONFIG_T>::inside(row - int(CONFIG_T::pad_top), column - int(CONFIG_T::pad_left));
    }

    // Whether a window ends at a pixel of the padded image.
    static bool ends(unsigned row, unsigned column) {
        return row + 1 >= height && (row + 1 - height) % CONFIG_T::stride_height == 0 &&
               (row + 1 - height) / CONFIG_T::stride_height < CONFIG_T::out_height && column + 1 >= width &&
               (column + 1 - width) % CONFIG_T::stride_width == 0 &&
               (column + 1 - width) / CONFIG_T::stride_width < CONFIG_T::out_width;
    }
};

// Move the window one pixel on: its new column is what the lines hold above the pixel, then the
// pixel; the lines move up by one.
template <class T, class CONFIG_T>
void hqc_shift_window(T pixel[CONFIG_T::n_chan], unsigned column,
                      T lines[hqc_reach<CONFIG_T>::lines][hqc_reach<CONFIG_T>::columns][CONFIG_T::n_chan],
                      T window[hqc_reach<CONFIG_T>::height][hqc_reach<CONFIG_T>::width][CONFIG_T::n_chan]) {
    #pragma HLS INLINE
    typedef hqc_reach<CONFIG_T> reach;
Channels:
    for (unsigned cc = 0; cc < CONFIG_T::n_chan; cc++) {
        #pragma HLS UNROLL
    Rows:
        for (unsigned rr = 0; rr < reach::height; rr++) {
            #pragma HLS UNROLL
        Columns:
            for (unsigned ww = 0; ww + 1 < reach::width; ww++) {
                #pragma HLS UNROLL
                window[rr][ww][cc] = window[rr][ww + 1][cc];
            }
            const T next = rr + 1 < reach::height ? lines[rr < reach::lines ? rr : 0][column][cc] : pixel[cc];
            window[rr][reach::width - 1][cc] = next;
            if (rr > 0)
                lines[rr - 1][column][cc] = next;
        }
    }
}

// The next pixel of the padded image; padding is 0.
template <class data_T, class CONFIG_T, class in_S>
void hqc_next_pixel(in_S &data, bool inside, typename data_T::value_type pixel[CONFIG_T::n_chan]) {
    #pragma HLS INLINE
    data_T packet;
    if (inside)
        packet = data.read();
Channels:
    for (unsigned cc = 0; cc < CONFIG_T::n_chan; cc++) {
        #pragma HLS UNROLL
        if (inside)
            pixel[cc] = packet[cc];
        else
            pixel[cc] = 0;
    }
}

// The products of a window in groups, as hqc_group_conv_2d; taps are (window, n_chan).
template <class data_T, class res_T, typename CONFIG_T>
void hqc_group_dense(data_T taps[CONFIG_T::filt_height * CONFIG_T::filt_width * CONFIG_T::n_chan],
                     res_T sums[CONFIG_T::n_filt],
                     typename CONFIG_T::weight_t weights[CONFIG_T::n_in * CONFIG_T::n_filt],
                     typename CONFIG_T::bias_t biases[CONFIG_T::n_filt]) {
    #pragma HLS INLINE
    #pragma HLS ARRAY_PARTITION variable=weights complete
    #pragma HLS ARRAY_PARTITION variable=biases complete
    #pragma HLS ALLOCATION operation instances=mul limit=CONFIG_T::multiplier_limit
    const unsigned chan_per_group = CONFIG_T::n_chan / CONFIG_T::n_group;
    const unsigned filt_per_group = CONFIG_T::n_filt / CONFIG_T::n_group;
Filters:
    for (unsigned ff = 0; ff < CONFIG_T::n_filt; ff++) {
        #pragma HLS UNROLL
        const unsigned first = ff / filt_per_group * chan_per_group;
        typename CONFIG_T::accum_t acc = (typename CONFIG_T::accum_t)biases[ff];
        #pragma hls_unroll yes
    Taps:
        for (unsigned tt = 0; tt < CONFIG_T::n_in; tt++) {
            #pragma HLS UNROLL
            const unsigned from = tt / chan_per_group * CONFIG_T::n_chan + first + tt % chan_per_group;
            acc += (typename CONFIG_T::accum_t)CONFIG_T::template product<data_T, typename CONFIG_T::weight_t>::product(
                taps[from], weights[tt * CONFIG_T::n_filt + ff]);
        }
        sums[ff] = (res_T)acc;
    }
}

// Convolution; the products of a window without groups are hls4ml's dense layer of either strategy.
template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_conv_2d_stream(in_S &data, out_S &res, typename CONFIG_T::weight_t weights[CONFIG_T::n_in * CONFIG_T::n_filt],
                        typename CONFIG_T::bias_t biases[CONFIG_T::n_filt]) {
    typedef hqc_reach<CONFIG_T> reach;
    typedef typename data_T::value_type value_t;
    typedef typename res_T::value_type sum_t;
    const unsigned n_taps = CONFIG_T::filt_height * CONFIG_T::filt_width * CONFIG_T::n_chan;
    value_t lines[reach::lines][reach::columns][CONFIG_T::n_chan];
    value_t window[reach::height][reach::width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0

Rows:
    for (unsigned row = 0; row < reach::rows; row++) {
    Columns:
        for (unsigned column = 0; column < reach::columns; column++) {
            if (CONFIG_T::n_group > 1 || CONFIG_T::strategy == nnet::latency) {
                #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            }
            value_t pixel[CONFIG_T::n_chan];
            hqc_next_pixel<data_T, CONFIG_T>(data, reach::inside(row, column), pixel);
            hqc_shift_window<value_t, CONFIG_T>(pixel, column, lines, window);
            if (reach::ends(row, column)) {
                value_t taps[n_taps];
                sum_t sums[CONFIG_T::n_filt];
                #pragma HLS ARRAY_PARTITION variable=taps complete
                #pragma HLS ARRAY_PARTITION variable=sums complete
            Taps:
                for (unsigned tt = 0; tt < n_taps; tt++) {
                    #pragma HLS UNROLL
                    const unsigned at = tt / CONFIG_T::n_chan;
                    taps[tt] = window[at / CONFIG_T::filt_width * CONFIG_T::dilation_height]
                                     [at % CONFIG_T::filt_width * CONFIG_T::dilation_width][tt % CONFIG_T::n_chan];
                }
                if (CONFIG_T::n_group > 1)
                    hqc_group_dense<value_t, sum_t, CONFIG_T>(taps, sums, weights, biases);
                else if (CONFIG_T::strategy == nnet::latency)
                    dense_latency<value_t, sum_t, CONFIG_T>(taps, sums, weights, biases);
                else
                    dense_resource<value_t, sum_t, CONFIG_T>(taps, sums, weights, biases);
                res_T packet;
            Filters:
                for (unsigned ff = 0; ff < CONFIG_T::n_filt; ff++) {
                    #pragma HLS UNROLL
                    packet[ff] = sums[ff];
                }
                res.write(packet);
            }
        }
    }
}

template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_group_conv_2d_stream(in_S &data, out_S &res,
                              typename CONFIG_T::weight_t weights[CONFIG_T::n_in * CONFIG_T::n_filt],
                              typename CONFIG_T::bias_t biases[CONFIG_T::n_filt]) {
    hqc_conv_2d_stream<data_T, res_T, CONFIG_T>(data, res, weights, biases);
}

// The largest element of each window, as hqc_max_pool_2d.
template <class data_T, class res_T, typename CONFIG_T, class in_S, class out_S>
void hqc_max_pool_2d_stream(in_S &data, out_S &res) {
    typedef hqc_reach<CONFIG_T> reach;
    typedef typename data_T::value_type value_t;
    value_t lines[reach::lines][reach::columns][CONFIG_T::n_chan];
    value_t window[reach::height][reach::width][CONFIG_T::n_chan];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0

Rows:
    for (unsigned row = 0; row < reach::rows; row++) {
    Columns:
        for (unsigned column = 0; column < reach::columns; column++) {
            #pragma HLS PIPELINE II=CONFIG_T::reuse_factor
            value_t pixel[CONFIG_T::n_chan];
            hqc_next_pixel<data_T, CONFIG_T>(data, reach::inside(row, column), pixel);
            hqc_shift_window<value_t, CONFIG_T>(pixel, column, lines, window);
            if (reach::ends(row, column)) {
                const int top = int(row + 1) - int(reach::height);
                const int left = int(column + 1) - int(reach::width);
                res_T packet;
            Channels:
                for (unsigned cc = 0; cc < CONFIG_T::n_chan; cc++) {
                    #pragma HLS UNROLL
                    value_t best = 0;
                    bool found = false;
                    #pragma hls_unroll yes
                Taps:
                    for (unsigned tt = 0; tt < CONFIG_T::filt_height * CONFIG_T::filt_width; tt++) {
                        #pragma HLS UNROLL
                        const unsigned down = tt / CONFIG_T::filt_width * CONFIG_T::dilation_height;
                        const unsigned right = tt % CONFIG_T::filt_width * CONFIG_T::dilation_width;
                        if (reach::inside(top + int(down), left + int(right)))
                            hqc_keep_larger(window[down][right][cc], best, found);
                    }
                    packet[cc] = best;
                }
                res.write(packet);
            }
        }
    }
}

} // namespace nnet

#endif
